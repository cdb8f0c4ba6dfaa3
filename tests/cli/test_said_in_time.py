# SPDX-License-Identifier: Apache-2.0
"""What a new user runs into is said at once, and with what to do: through the real command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from graphprune import extras
from graphprune.data import providers
from graphprune.data.preprocessing import SETTINGS
from graphprune.verification.passage import Passage, RunError
from graphprune.verification.spec import PieceSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def photographs(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(count)
    for at in range(count):
        Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(folder / f"{at}.png")


def arrays(path: Path, count: int, name: str = "image") -> str:
    np.savez(path, **{name: np.random.default_rng(0).standard_normal((count, 3, 12, 12)).astype(np.float32)})
    return path.name


@pytest.fixture
def cuda_seems_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_cuda_fault", str)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [providers.CUDA, providers.CPU])


def test_a_share_that_few_samples_show_comes_with_its_range(quick: Command, model: Path) -> None:
    few, many = (arrays(model.with_name(f"{count}.npz"), count) for count in (8, 120))
    assert quick("solve", model, "--flops", "0.6", "--calib", few).code == 0
    doubtful = quick("eval", "net.pruned.onnx", "--teacher", model, "--data", few)
    assert "too few to say much: it may be" in doubtful.out
    assert "too few" not in quick("eval", "net.pruned.onnx", "--teacher", model, "--data", many).out
    again = quick("solve", model, "--flops", "0.6", "--calib", few, "-f")
    (line,) = [line for line in again.out.splitlines() if line.startswith("agreement")]
    assert "held-out sample" in line and "too few to say much" in again.out
    ranked = quick("compare", model, "--flops", "0.6", "--calib", few, "--solver", "uniform", "--criterion", "l1")
    assert "too few to tell results apart" in ranked.out


def test_the_log_says_what_failed(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--flops", "0.000001", "--quick", "--log", "log.jsonl").code == 1
    assert quick("eval", model, "--data", "none.npz", "--log", "other.jsonl").code == 2
    for name in ("log.jsonl", "other.jsonl"):
        entries = [json.loads(line) for line in model.with_name(name).read_text().splitlines()]
        failed = [entry for entry in entries if entry["event"] == "failed"]
        assert failed and all(entry["error"] for entry in failed)
    assert "does not exist" in failed[-1]["error"]


@pytest.mark.parametrize("options", [("--quick",), ("--recover", "none")])
def test_a_dry_run_names_the_command_that_writes(quick: Command, model: Path, options: tuple[str, ...]) -> None:
    done = quick("solve", model, "--flops", "0.6", *options, "--dry-run")
    assert done.code == 0, done.err
    shown = " ".join(map(str, ("graphprune", "solve", model, "--flops", "0.6", *options)))
    assert done.out.splitlines()[-1].split(maxsplit=1) == ["next", shown]
    assert not model.with_name("net.pruned.onnx").exists()


def test_where_nothing_has_to_be_done_no_command_is_named(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--lossless", "--dry-run")
    assert done.code == 0, done.err
    assert not [line for line in done.out.splitlines() if line.startswith("next")]


def test_folders_that_are_no_classes_are_no_labels(quick: Command, model: Path) -> None:
    for name, count in (("holiday", 2), ("work", 3)):
        photographs(model.parent / "album" / name, count)
    options = ("--mean", "0.5", "--std", "0.5")
    done = quick("eval", model, "--data", "album", *options)
    assert done.code == 2
    assert "no labels to compare with: 2 folders with images, but the model tells 5 classes apart" in done.err
    assert "--teacher MODEL" in done.err
    compared = quick("eval", model, "--data", "album", "--teacher", model, *options)
    assert compared.code == 0 and "top-1" not in compared.out


def test_folders_that_are_classes_are_said_to_be(quick: Command, model: Path) -> None:
    for name in "abcde":
        photographs(model.parent / "classes" / name, 2)
    done = quick("eval", model, "--data", "classes", "--mean", "0.5", "--std", "0.5")
    assert done.code == 0 and "top-1" in done.out
    assert "(labels: its 5 folders, 'a' is class 0, 'e' 4)" in done.err


def test_every_command_that_runs_networks_says_where(quick: Command, model: Path) -> None:
    data = arrays(model.with_name("data.npz"), 16)
    assert quick("solve", model, "--flops", "0.6", "--quick").code == 0
    pair = ("net.pruned.onnx", "--teacher", model)
    for command in (
        ("eval", *pair, "--data", data),
        ("recover", *pair, "--plan", "net.plan.json", "--calib", data),
        ("apply", model, "net.plan.json", "-f"),
        ("verify", model, "net.pruned.onnx", "net.plan.json"),
        ("compare", model, "--flops", "0.6", "--quick", "--solver", "uniform", "--criterion", "l1"),
    ):
        assert "device" in quick(*command, "-v").err, command


def test_no_samples_are_made_where_nothing_has_to_be_done(
    quick: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: object, **__: object) -> None:
        raise AssertionError("samples were made")

    monkeypatch.setattr("graphprune.cli.commands.solve.find_material", made)
    done = quick("solve", model, "--flops", "300M")
    assert done.code == 0, done.err
    assert "nothing had to be done" in done.out


def test_verification_runs_elsewhere_where_that_is_asked_for(
    quick: Command, model: Path, cuda_seems_to_work: None
) -> None:
    assert quick("solve", model, "--flops", "0.6", "--quick", "-v").out.count("run on cuda") == 0
    done = quick("verify", model, "net.pruned.onnx", "net.plan.json", "--verify-device", "cuda", "-v")
    assert done.code == 0, done.err
    assert "run on cuda" in done.out
    assert "device of verification: cuda" in done.err


def test_the_comparison_opens_its_sessions_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = onnxruntime.InferenceSession

    def session(path: Any, options: Any = None, **given: Any) -> Any:
        asked.append(given["providers"])
        return real(path, options, providers=[providers.CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    feeds = {"image": np.zeros((1, 3, 12, 12), np.float32)}
    for device in ("cpu", "cuda"):
        passage = Passage(model.parent, [PieceSpec(model.name)], RunError, device=device)  # type: ignore[arg-type]
        passage.run(["scores"], feeds)
        passage.other.run(["scores"], feeds)
    names = [[each if isinstance(each, str) else each[0] for each in one] for one in asked]
    assert names == [[providers.CPU]] * 2 + [[providers.CUDA, providers.CPU]] * 2


def test_a_device_that_does_not_work_is_refused_for_verification_too(
    quick: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [providers.CPU])
    done = quick("solve", model, "--flops", "0.6", "--quick", "--verify-device", "cuda")
    assert done.code == 2
    assert "built without CUDA" in done.err
    monkeypatch.setenv(providers.VERIFY_VARIABLE, "cudo")
    assert "VERIFY_DEVICE" in quick("solve", model, "--flops", "0.6", "--quick").err


def test_the_size_of_images_has_one_name(quick: Command, model: Path) -> None:
    assert quick("init", model, "--mean", "0.5", "--std", "0.5").code == 0
    written = model.with_name(SETTINGS)
    assert "image_size = [12, 12]" in written.read_text()
    photographs(model.parent / "album", 2)
    for name in ("image_size", "image-size"):
        written.write_text(f"[data]\n{name} = 12\nmean = 0.5\nstd = 0.5\n")
        assert quick("eval", model, "--teacher", model, "--data", "album").code == 0
    written.write_text("[data]\nsize = 12\n")
    refused = quick("eval", model, "--teacher", model, "--data", "album")
    assert refused.code == 2
    assert "[data] has size, which is called image_size, as the option --image-size is" in refused.err


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (("solve", "--criterion", "taylor"), True),
        (("solve", "--criterion", "fisher"), True),
        (("solve", "--criterion", "cpli"), True),
        (("solve", "--criterion", "cpli", "--set", "guided=false"), False),
        (("solve", "--criterion", "domino-o", "--set", "base=fisher"), True),
        (("solve", "--criterion", "domino-o"), False),
        (("solve", "--adapt", "l1,taylor"), True),
        (("compare", "--criterion", "l1,taylor"), True),
        (("sweep", "--criterion", "taylor"), True),
    ],
)
def test_what_needs_torch_is_refused_before_anything_is_read(
    options: tuple[str, ...], refused: bool, quick: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "torch" else object())
    command, *rest = options
    done = quick(command, model.with_name("missing.onnx"), *rest, "--flops", "0.5")
    assert done.code == 2
    assert ("pip install 'graphprune[train]'" in done.err) is refused
    assert ("missing.onnx" in done.err) is not refused


def test_pixels_with_channels_first_are_taken_where_nothing_else_fits(quick: Command, model: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 12, 12), dtype=np.uint8)
    np.savez(model.with_name("first.npz"), image=pixels)
    np.savez(model.with_name("last.npz"), image=pixels.transpose(0, 2, 3, 1))
    np.savez(model.with_name("other.npz"), image=pixels[:, :2])
    options = ("--mean", "0.5", "--std", "0.5")
    assert quick("solve", model, "--flops", "0.6", "--quick").code == 0
    pair = ("eval", "net.pruned.onnx", "--teacher", model, "--data")
    first, last, other = (quick(*pair, f"{name}.npz", *options) for name in ("first", "last", "other"))
    assert first.code == 0 and first.out == last.out
    assert other.code == 2
    assert "(samples, height, width, 3) or (samples, 3, height, width), with height x width 12x12" in other.err


def test_arrays_of_another_name_are_refused(quick: Command, model: Path) -> None:
    data = arrays(model.with_name("data.npz"), 8, "imgae")
    done = quick("eval", model, "--teacher", model, "--data", data)
    assert done.code == 2
    assert "there is no array for input 'image'" in done.err
    assert "did you mean 'image'?" in done.err
    np.savez(model.with_name("unnamed.npz"), np.zeros((8, 3, 12, 12), np.float32))
    assert quick("eval", model, "--teacher", model, "--data", "unnamed.npz").code == 0


def test_an_unknown_solver_is_told_of_auto(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--flops", "0.5", "--quick", "--solver", "automatic")
    assert done.code == 2
    assert "there are auto, bisection" in done.err and "did you mean auto?" in done.err
    assert "cannot be named here" in quick("compare", model, "--flops", "0.5", "--quick", "--solver", "auto").err
