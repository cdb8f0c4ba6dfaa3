# SPDX-License-Identifier: Apache-2.0
"""What is said of samples that are odd, few or broken, and of options for images where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from PIL import Image
from tiny_models import model as tiny

import graphprune

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Run = Callable[..., Outcome]

FEW = 5


def samples(path: Path, count: int = 40, **others: object) -> str:
    images = np.random.default_rng(0).standard_normal((count, 3, 12, 12)).astype(np.float32)
    np.savez(path, image=images, **others)
    return path.name


@pytest.mark.parametrize("option", ["--mean", "--std", "--image-size"])
@pytest.mark.parametrize(
    "command",
    [
        ("solve", "net.onnx", "--flops", "0.5"),
        ("solve", "net.onnx", "--flops", "0.5", "--calib", "synthetic:64"),
        ("compare", "net.onnx", "--flops", "0.5"),
        ("sweep", "net.onnx", "--quick", "-o", "rows.csv"),
        ("quantize", "net.onnx"),
        ("deploy", "net.onnx", "--check", "onnxruntime"),
        ("eval", "net.onnx", "--teacher", "net.onnx", "--data", "synthetic:8"),
        ("recover", "net.onnx", "--teacher", "net.onnx", "--plan", "net.plan.json", "--calib", "synthetic:8"),
    ],
)
def test_options_for_images_are_refused_where_there_are_none(
    option: str, command: tuple[str, ...], quick: Run, model: Path
) -> None:
    done = quick(*command, option, "0.5")
    assert done.code == 2
    assert f"{option} is for images of 8 bits, and there are none" in done.err
    assert sorted(path.name for path in model.parent.iterdir()) == ["net.onnx"]


def test_what_looks_like_made_samples_is_told_how_to_ask_for_them(quick: Run, model: Path) -> None:
    done = quick("eval", model, "--teacher", model, "--data", "synthetic:fin")
    assert done.code == 2
    assert done.err.splitlines()[-1] == "hint: give synthetic[:fine][:N]"


def test_labels_that_are_no_classes_of_the_model_are_said_to_be_passed_over(
    quick: Run, model: Path, tmp_path: Path
) -> None:
    data = samples(tmp_path / "some.npz", labels=np.arange(40) + 90)
    done = quick("solve", model, "--flops", "0.5", "--calib", data, "--solver", "uniform")
    assert done.code == 0, done.err
    assert (
        "note: the labels are not compared with: 'some.npz' has classes from 94 to 126, the model knows 5"
        in done.err.splitlines()
    )
    assert "agreement " in done.out


def test_labels_may_keep_an_axis_and_are_one_class_a_sample(quick: Run, model: Path, tmp_path: Path) -> None:
    classes = np.arange(40) % 5
    kept = samples(tmp_path / "kept.npz", labels=classes[:, None])
    plain = samples(tmp_path / "plain.npz", labels=classes)
    shown = [quick("eval", model, "--data", name).out for name in (kept, plain)]
    assert "top-1" in shown[0] and shown[0] == shown[1]
    one_hot = samples(tmp_path / "one_hot.npz", labels=np.eye(5, dtype=np.float32)[classes])
    done = quick("eval", model, "--data", one_hot)
    assert done.code == 2
    assert done.err.splitlines()[-1] == "hint: give the class alone: labels.argmax(axis=1)"


def test_one_sample_is_one(quick: Run, model: Path, tmp_path: Path) -> None:
    few = samples(tmp_path / "few.npz", FEW)
    done = quick("solve", model, "--flops", "0.5", "--calib", few, "--solver", "uniform")
    assert done.code == 0, done.err
    assert "(1 sample held out, 4 used)" in done.out
    done = quick("solve", model, "--flops", "0.5", "--calib", samples(tmp_path / "one.npz", 1), "--force")
    assert done.code == 2
    error, hint = done.err.splitlines()[-2:]
    assert error == "error: 'one.npz' has 1 sample, of which 1 cannot be held out"
    assert hint == "hint: give more of them: some are used, and others judge"


def test_values_for_other_channels_are_said_to_be_so(quick: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "graphprune.toml").write_text("[data]\nmean = [0.1, 0.2]\n")
    np.save(tmp_path / "images.npy", np.zeros((8, 12, 12, 3), np.uint8))
    done = quick("eval", model, "--teacher", model, "--data", "images.npy")
    assert done.code == 2
    assert "2 values of mean or std are given for 3 channels" in done.err
    assert "graphprune.toml" in done.err


def test_what_systems_hide_in_a_folder_is_no_image(quick: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(FEW):
        Image.fromarray(np.full((12, 12, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    (folder / "._0.png").write_bytes(b"\x00\x05\x16\x07")  # beside each file on disks that a Mac has written to
    command = ("eval", model, "--teacher", model, "--data", "photos", "--mean", "0", "--std", "1")
    done = quick(*command)
    assert done.code == 0, done.err
    assert "samples  5 of photos" in done.err
    (folder / "broken.png").write_bytes(b"nothing")
    done = quick(*command)
    assert done.code == 2
    assert done.err.splitlines()[-1] == "hint: mend it, or take it out of the folder"


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_images_of_16_bits_are_what_those_of_8_are(ending: str, quick: Run, model: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    for name, pixels in (("eight", values), ("sixteen", values.astype(np.uint16) * 257)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / f"0.{ending}")
    loaded, (eight, sixteen) = graphprune.load(model), ("eight", "sixteen")
    fed = [graphprune.samples(loaded, tmp_path / name, mean=0, std=1).read(np.arange(1)) for name in (eight, sixteen)]
    assert (fed[0].feeds["image"] == fed[1].feeds["image"]).all()
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "sixteen" / "1.tif")
    done = quick("eval", model, "--teacher", model, "--data", "sixteen", "--mean", "0", "--std", "1")
    assert done.code == 2
    assert "has pixels of 32 bits, of which nobody knows what is white" in done.err


@pytest.mark.parametrize(("dims", "size"), [("n,3,6,w", (6, 18)), ("n,3,h,9", (3, 9)), ("n,3,h,w", (12, 36))])
def test_images_keep_their_proportions_where_one_side_is_open(
    dims: str, size: tuple[int, int], quick: Run, tmp_path: Path
) -> None:
    text = f"(float[{dims}] image) => (float[n,4] y) {{ a = Conv(image, w) b = GlobalAveragePool(a) y = Flatten(b) }}"
    onnx.save(tiny(text, {"w": (4, 3, 1, 1)}), tmp_path / "lines.onnx")
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(FEW):
        Image.fromarray(np.full((12, 36, 3), 40 * number, np.uint8)).save(folder / f"{number}.png")
    done = quick("eval", "lines.onnx", "--teacher", "lines.onnx", "--data", "photos")
    assert done.code == 0, done.err
    source = graphprune.samples(graphprune.load(tmp_path / "lines.onnx"), folder)
    assert source.read(np.arange(FEW)).feeds["image"].shape == (FEW, 3, *size)


def test_where_nothing_had_to_be_done_nothing_comes_next(quick: Run, model: Path) -> None:
    done = quick("solve", model, "--flops", "300M", "--dry-run")
    assert done.code == 0, done.err
    assert "nothing had to be done" in done.out
    assert "next " not in done.out
