# SPDX-License-Identifier: Apache-2.0
"""How 8-bit images are normalised: found from the file, held against it, said in one line, written by `init`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from PIL import Image
from remembering_models import network, trained_on

import graphprune as library
from graphprune.data.normalisation import CANDIDATES
from graphprune.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Outcome

    from graphprune.array_types import Array

    Command = Callable[..., Outcome]

BY_NAME = {each.name: each for each in CANDIDATES}
FOUND = ("ImageNet mean and deviation", "-1..1", "0..1", "0..255")


def pictures(count: int, seed: int = 0, channels: int = 3) -> Array:
    """Return pictures of 8 bits whose brightness and contrast are about those of photographs."""
    random = np.random.default_rng(seed)
    brightness = random.normal(0.46, 0.14, (count, 1, 1, channels))
    rough = random.normal(0, 0.2, (count, 3, 3, channels)).repeat(4, axis=1).repeat(4, axis=2)
    values = brightness + rough + random.normal(0, 0.05, (count, 12, 12, channels))
    return (255 * values.clip(0, 1)).round().astype(np.uint8)


def trained_with(name: str, path: Path, channels: int = 3) -> Path:
    """Write a network that was trained on such pictures, normalised in one way."""
    way = BY_NAME[name]
    mean, std = (np.asarray(values, np.float32).reshape(1, -1, 1, 1) for values in (way.mean, way.std))
    images = pictures(256, 1, channels).transpose(0, 3, 1, 2).astype(np.float32) / 255
    trained = trained_on(network(channels=channels), ((images - mean) / std).astype(np.float32))
    onnx.save(trained.proto, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, values in enumerate(pictures(40)):
        Image.fromarray(values).save(folder / f"{number:02}.png")
    return folder


def line(done: Outcome) -> str:
    (found,) = [text for text in done.err.splitlines() if text.startswith("samples  ")]
    return found


@pytest.mark.parametrize("name", FOUND)
def test_the_normalisation_is_found_and_said_in_one_line(
    name: str, quick: Command, folder: Path, tmp_path: Path
) -> None:
    model = trained_with(name, tmp_path / "net.onnx")
    done = quick("eval", model, "--teacher", model, "--data", "photos")
    assert done.code == 0, done.err
    assert line(done).startswith(f"samples  40 of photos, 0..255 -> {name} (found: mismatch 0.0")
    assert ", next " in line(done)
    array = tmp_path / "photos.npy"
    np.save(array, pictures(30))
    done = quick("eval", model, "--teacher", model, "--data", array)
    assert f"30 of {array}, 0..255 -> {name} (found" in line(done)


def test_a_file_that_does_not_tell_ends_the_command_with_the_candidates(
    quick: Command, folder: Path, tmp_path: Path
) -> None:
    onnx.save(network(), tmp_path / "net.onnx")  # random statistics: it remembers nothing that pictures could give
    done = quick("eval", "net.onnx", "--teacher", "net.onnx", "--data", "photos")
    assert done.code == 2
    error, hint = done.err.splitlines()[-2:]
    assert "how the 8-bit images of 'photos' are to be normalised is unclear" in error
    assert all(f"{name} " in error for name in FOUND)
    assert "--mean" in hint and "--std" in hint
    done = quick("eval", "net.onnx", "--teacher", "net.onnx", "--data", "photos", "--mean", "0", "--std", "1")
    assert done.code == 0, done.err
    assert "0..255 -> 0..1 (given: mismatch " in line(done)


def test_what_is_given_is_followed_and_doubted_where_another_fits_clearly_better(
    quick: Command, folder: Path, tmp_path: Path
) -> None:
    model = trained_with("ImageNet mean and deviation", tmp_path / "net.onnx")
    command = ("eval", model, "--teacher", model, "--data", "photos")
    done = quick(*command, "--mean", "0", "--std", "1")
    assert done.code == 0, done.err
    (warning,) = [text for text in done.err.splitlines() if text.startswith("warning: ")]
    assert "ImageNet mean and deviation fits these images clearly better" in warning
    assert "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in warning
    assert "0..255 -> 0..1 (given: mismatch " in line(done)
    done = quick(*command, "--mean", "0.4914,0.4822,0.4465", "--std", "0.247,0.2435,0.2616")
    assert "warning" not in done.err
    assert "CIFAR mean and deviation (given" in line(done)


def test_without_statistics_what_is_assumed_is_said(quick: Command, folder: Path, tmp_path: Path) -> None:
    proto = network()
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization":
            node.op_type = "Identity"
            del node.input[1:]
    onnx.save(proto, tmp_path / "net.onnx")
    done = quick("eval", "net.onnx", "--teacher", "net.onnx", "--data", "photos")
    assert done.code == 0, done.err
    assert "0..255 -> 0..1 (assumed: the file keeps no statistics that would tell)" in line(done)


def test_arrays_that_are_ready_are_fed_as_they_are(quick: Command, tmp_path: Path) -> None:
    model = trained_with("0..1", tmp_path / "net.onnx")
    np.save(tmp_path / "ready.npy", pictures(8).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    done = quick("eval", model, "--teacher", model, "--data", "ready.npy")
    assert line(done).startswith("samples  8 of ready.npy, fed as they are (mismatch 0.0")
    assert "warning" not in done.err


@pytest.mark.parametrize("high", [1, 255])
def test_pixels_that_were_stored_as_floats_and_not_normalised_are_doubted(
    high: int, quick: Command, tmp_path: Path
) -> None:
    model = trained_with("ImageNet mean and deviation", tmp_path / "net.onnx")
    np.save(tmp_path / "raw.npy", pictures(30).transpose(0, 3, 1, 2).astype(np.float32) * (high / 255))
    done = quick("eval", model, "--teacher", model, "--data", "raw.npy")
    assert done.code == 0, done.err
    (warning,) = [text for text in done.err.splitlines() if text.startswith("warning: ")]
    assert f"'raw.npy' holds values from 0 to {high}, which are fed as they are" in warning
    assert "ImageNet mean and deviation (0.485, 0.456, 0.406 and 0.229, 0.224, 0.225, of pixels from 0 to 1)" in warning
    assert "store images as uint8, or normalise them" in warning
    with pytest.warns(UserWarning, match="would fit clearly better"):
        library.samples(library.load(model), np.load(tmp_path / "raw.npy"))


def test_arrays_of_which_the_file_says_nothing_are_fed_without_a_word(quick: Command, tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx")  # random statistics: nothing fits, normalised or not
    np.save(tmp_path / "raw.npy", pictures(30).transpose(0, 3, 1, 2).astype(np.float32))
    done = quick("eval", "net.onnx", "--teacher", "net.onnx", "--data", "raw.npy")
    assert "warning" not in done.err
    assert ", fed as they are (mismatch " in line(done)


@pytest.mark.parametrize("command", ["solve", "compare", "sweep", "recover", "eval"])
def test_every_command_that_takes_samples_takes_the_same_options(command: str, quick: Command) -> None:
    shown = quick(command, "--help").out
    for option in ("--mean R,G,B", "--std R,G,B", "--image-size HxW", "--layout"):
        assert option in shown


def test_size_means_bytes_only(quick: Command, folder: Path, tmp_path: Path) -> None:
    model = trained_with("0..1", tmp_path / "net.onnx")
    assert "No such option: --size" in quick("eval", model, "--data", "photos", "--size", "12").err


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_compare_and_sweep_find_it_once(command: str, quick: Command, folder: Path, tmp_path: Path) -> None:
    model = trained_with("-1..1", tmp_path / "net.onnx")
    done = quick(command, model, "--flops", "0.6", "--solver", "uniform", "--data", "photos", "--calib", "photos")
    assert done.code == 0, done.err
    first, second = [text for text in done.err.splitlines() if text.startswith("samples  ")]
    assert "-> -1..1 (found" in first
    assert first == second


def test_init_writes_what_was_found_and_commands_read_it(quick: Command, folder: Path, tmp_path: Path) -> None:
    model = trained_with("ImageNet mean and deviation", tmp_path / "net.onnx")
    done = quick("init", model, "--calib", "photos")
    assert done.code == 0, done.err
    written = tmp_path / "graphprune.toml"
    table: dict[str, Any] = tomllib.loads(written.read_text())["data"]
    assert table == {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "image_size": [12, 12],
        "layout": "NCHW",
    }
    assert "found: mismatch" in written.read_text()
    assert "-> ImageNet mean and deviation (given" in line(quick("eval", model, "--teacher", model, "--data", "photos"))
    assert quick("init", model).code == 2  # it is there
    done = quick("init", model, "--force", "--json")
    assert json.loads(done.out) == {
        "command": "init",
        "output": str(written),
        "mean": None,
        "std": None,
        "layout": "NCHW",
        "image_size": [12, 12],
    }
    assert tomllib.loads(written.read_text())["data"] == {"image_size": [12, 12], "layout": "NCHW"}
    assert "# mean = " in written.read_text()


def test_init_is_about_images(quick: Command, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x) => (float[n,4] y) { y = Relu(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    done = quick("init", "net.onnx")
    assert done.code == 2
    assert "the model takes other inputs: 'x'" in done.err


def test_in_python_a_doubt_is_a_warning_and_what_is_unclear_an_error(folder: Path, tmp_path: Path) -> None:
    model = library.load(trained_with("-1..1", tmp_path / "net.onnx"))
    with pytest.warns(UserWarning, match=r"-1\.\.1 fits these images clearly better"):
        library.open_data(str(folder), model, library.Preprocessing((0.0,), (1.0,)))
    with pytest.raises(UsageError, match="is unclear"):
        library.open_data(str(folder), library.load(network()))


def test_grey_pictures_are_told_apart_too(tmp_path: Path) -> None:
    model = library.load(trained_with("-1..1", tmp_path / "net.onnx", channels=1))
    np.save(tmp_path / "grey.npy", pictures(30, channels=1))
    found: Any = library.open_data(str(tmp_path / "grey.npy"), model).reader
    assert found.images["image"].preprocessing.mean == (0.5,)
