# SPDX-License-Identifier: Apache-2.0
"""Every kind of source gives the samples that it names, in order, and says clearly what does not fit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from graphprune.data.arrays import from_arrays
from graphprune.data.feeding import filled, whole_batches
from graphprune.data.open_source import open_source
from graphprune.data.preprocessing import Preprocessing, parse_numbers, parse_size, read_settings
from graphprune.data.signature import InputSpec, batch_size
from graphprune.errors import DataError, GraphPruneError, UnsupportedModelError, UsageError
from graphprune.model.sizes.batch_axes import UNCLEAR

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = InputSpec("image", np.dtype(np.float32), (None, 3, 8, 8))
VECTOR = InputSpec("x", np.dtype(np.float32), (None, 4))
MEAN, STD = (0.5, 0.25, 0.0), (0.5, 1.0, 2.0)


def picture(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def normalised(images: np.ndarray) -> np.ndarray:
    return ((images / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32).transpose(0, 3, 1, 2)


def folder(root: Path, names: list[str], **size: int) -> np.ndarray:
    images = [picture(seed, **size) for seed in range(len(names))]
    for name, image in zip(names, images, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name)
    return np.stack(images)


def test_a_flat_folder_in_the_order_of_names(tmp_path: Path) -> None:
    images = folder(tmp_path, ["b.png", "a.png", "c.png"])
    source = open_source(str(tmp_path), [IMAGE], Preprocessing(MEAN, STD))
    batches = list(source.batches(2))
    assert [len(batch) for batch in batches] == [2, 1]
    assert not source.labelled
    assert batches[0].labels is None
    found = np.concatenate([batch.feeds["image"] for batch in batches])
    np.testing.assert_allclose(found, normalised(images[[1, 0, 2]]), atol=1e-6)


def test_folders_are_classes(tmp_path: Path) -> None:
    folder(tmp_path, ["dog/1.png", "cat/1.png", "cat/2.jpg"])
    source = open_source(str(tmp_path), [IMAGE])
    assert source.classes == ("cat", "dog")
    assert source.read(np.arange(3)).labels.tolist() == [0, 0, 1]


def test_images_are_brought_to_the_size_of_the_input(tmp_path: Path) -> None:
    folder(tmp_path, ["a.png"], height=20, width=31)
    source = open_source(str(tmp_path), [IMAGE])
    assert source.read(np.arange(1)).feeds["image"].shape == (1, 3, 8, 8)


def test_grey_channels_last_and_bytes(tmp_path: Path) -> None:
    images = folder(tmp_path, ["a.png"])
    raw = InputSpec("image", np.dtype(np.uint8), (None, 8, 8, 3))
    np.testing.assert_array_equal(open_source(str(tmp_path), [raw]).read(np.arange(1)).feeds["image"], images)
    grey = InputSpec("image", np.dtype(np.float32), (1, 1, 8, 8))
    assert open_source(str(tmp_path), [grey]).read(np.arange(1)).feeds["image"].shape == (1, 1, 8, 8)


def test_npz_by_input_name_with_labels(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=values, labels=np.arange(5, dtype=np.uint8))
    source = open_source(str(tmp_path / "d.npz"), [VECTOR])
    batch = source.read(np.array([3, 1]))
    np.testing.assert_array_equal(batch.feeds["x"], values[[3, 1]])
    assert batch.labels.tolist() == [3, 1]
    assert batch.labels.dtype == np.int64


def test_npz_of_images_is_normalised_like_files(tmp_path: Path) -> None:
    images = np.stack([picture(0), picture(1)])
    np.savez(tmp_path / "d.npz", image=images)
    found = open_source(str(tmp_path / "d.npz"), [IMAGE], Preprocessing(MEAN, STD)).read(np.arange(2))
    np.testing.assert_allclose(found.feeds["image"], normalised(images), atol=1e-6)


def test_several_inputs_and_one_that_all_samples_share(tmp_path: Path) -> None:
    scale = InputSpec("scale", np.dtype(np.float32), (1, 2))
    np.savez(tmp_path / "d.npz", x=np.zeros((6, 4), np.float32), scale=np.ones((1, 2), np.float32))
    batch = open_source(str(tmp_path / "d.npz"), [VECTOR, scale]).read(np.arange(3))
    assert len(batch) == 3
    assert batch.feeds["scale"].shape == (1, 2)
    assert batch.shared == {"scale"}


STATE = InputSpec("state", np.dtype(np.float32), (2, None, 3), 1)


def test_samples_on_another_axis(tmp_path: Path) -> None:
    state = np.arange(36, dtype=np.float32).reshape(2, 6, 3)
    rate = InputSpec("rate", np.dtype(np.int64), (), None)
    np.savez(tmp_path / "d.npz", x=np.zeros((6, 4), np.float32), state=state, rate=np.int64(8))
    source = open_source(str(tmp_path / "d.npz"), [STATE, VECTOR, rate])
    batch = source.limited(3).read(np.array([0, 2]))
    assert (len(source), len(batch)) == (6, 2)
    np.testing.assert_array_equal(batch.feeds["state"], state[:, [1, 5]])
    assert (batch.axes, batch.shared) == ({"state": 1}, {"rate"})


def test_one_sample_serves_all() -> None:
    source = from_arrays("it", [VECTOR, STATE], {"x": np.zeros((5, 4), np.float32), "state": np.ones((2, 1, 3), "f4")})
    assert len(source) == 5
    assert source.read(np.array([4, 0, 1])).feeds["state"].shape == (2, 3, 3)


def test_samples_on_an_axis_that_is_not_theirs() -> None:
    x = np.zeros((5, 4), np.float32)
    with pytest.raises(DataError, match="does not fit") as caught:
        from_arrays("it", [VECTOR, STATE], {"x": x, "state": np.zeros((5, 2, 3), np.float32)})
    assert caught.value.hint == "axis 1 of this input counts samples: numpy.moveaxis(array, 0, 1)"
    with pytest.raises(DataError, match=r"different numbers of samples: 'x' 5, 'state' 4 \(axis 1\)"):
        from_arrays("it", [VECTOR, STATE], {"x": x, "state": np.zeros((2, 4, 3), np.float32)})
    unclear = InputSpec("state", np.dtype(np.float32), (2, None, None), UNCLEAR)
    with pytest.raises(DataError, match="which axis of input 'state'") as caught:
        from_arrays("it", [VECTOR, unclear], {"x": x, "state": np.zeros((2, 5, 3), np.float32)})
    assert "dim_param" in str(caught.value.hint)


def test_npy_feeds_a_single_input(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.ones((3, 4), np.float32))
    source = open_source(str(tmp_path / "d.npy"), [VECTOR])
    assert len(source) == 3
    assert source.name == str(tmp_path / "d.npy")


@pytest.mark.parametrize("name", ["text.npz", "text.npy"])
def test_what_is_no_array_is_not_called_a_pickle(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("samples")
    with pytest.raises(DataError, match="no arrays of numpy"):
        open_source(str(tmp_path / name), [VECTOR])


def test_a_function_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_samples.py").write_text(
        "import numpy as np\n"
        "def pairs():\n    for at in range(3):\n"
        "        yield {'x': np.full((2, 4), at, np.float32)}, np.array([at, at])\n"
        "def plain():\n    return [{'x': np.zeros((1, 4), np.float32)}]\n"
        "def broken():\n    raise KeyError('no')\n"
        "def wrong():\n    return [3]\n"
        "def empty():\n    return []\n"
        "def some():\n    return [*plain(), next(pairs())]\n"
        "def rated(*rates):\n"
        "    return [{'x': np.zeros((2, 4), np.float32), 'rate': rate} for rate in rates or (3, 3)]\n"
        "def differing():\n    return rated(3, 4)\n"
        "def stateful():\n"
        "    states = [np.full((2, 2, 3), at, np.float32) for at in range(3)]\n"
        "    return [{'x': np.zeros((2, 4), np.float32), 'state': state} for state in states]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = open_source("my_samples:pairs", [VECTOR])
    assert source.read(np.arange(6)).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert not open_source("my_samples:plain", [VECTOR]).labelled
    rate = InputSpec("rate", np.dtype(np.int64), ())
    rated = open_source("my_samples:rated", [VECTOR, rate])
    assert len(rated) == 4
    assert rated.read(np.arange(2)).feeds["rate"] == 3
    state = open_source("my_samples:stateful", [VECTOR, STATE]).read(np.arange(6)).feeds["state"]
    assert state[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(DataError, match="cannot be joined"):
        open_source("my_samples:differing", [VECTOR, rate])
    for name, message in (("broken", "failed"), ("wrong", "yields"), ("empty", "nothing"), ("some", "some of its")):
        with pytest.raises(DataError, match=message):
            open_source(f"my_samples:{name}", [VECTOR])
    with pytest.raises(UsageError, match="cannot be imported"):
        open_source("my_samples:missing", [VECTOR])


def test_a_torchvision_dataset_is_read_from_disk_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHPRUNE_DATA", str(tmp_path))
    with pytest.raises(DataError, match="not complete"):
        open_source("torchvision:CIFAR10", [IMAGE])
    with pytest.raises(UsageError, match="no dataset"):
        open_source("torchvision:Nonsense", [IMAGE])
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digits = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    for stem in ("train", "t10k"):
        shape = b"".join(size.to_bytes(4, "big") for size in digits.shape)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + shape + digits.tobytes())
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x03" + bytes([7, 8, 9]))
    grey = InputSpec("image", np.dtype(np.float32), (None, 1, 8, 8))
    batch = open_source("torchvision:MNIST:test", [grey]).read(np.arange(3))
    assert batch.labels.tolist() == [7, 8, 9]
    np.testing.assert_allclose(batch.feeds["image"][:, 0], digits / 255, atol=1e-6)


UNFIT = {
    "shape": (np.zeros((2, 5), np.float32), "does not fit"),
    "axes": (np.zeros(4, np.float32), "does not fit"),
    "type": (np.zeros((2, 4), np.int64), "cannot be fed"),
    "nan": (np.full((2, 4), np.nan, np.float32), "NaN"),
    "none": (np.zeros((0, 4), np.float32), "no samples"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_arrays_that_do_not_fit(case: str) -> None:
    array, message = UNFIT[case]
    with pytest.raises(DataError, match=message):
        from_arrays("it", [VECTOR], {"x": array}).read(np.arange(1))


def test_more_that_does_not_fit(tmp_path: Path) -> None:
    other = InputSpec("other", np.dtype(np.float32), (None, 2))
    two = {"x": np.zeros((2, 4), np.float32), "other": np.zeros((3, 2), np.float32)}
    cases: list[tuple[object, str]] = [
        (lambda: from_arrays("it", [VECTOR, other], {"x": two["x"], "y": two["other"]}), "no array for input"),
        (lambda: from_arrays("it", [VECTOR, other], two), "different numbers"),
        (lambda: from_arrays("it", [VECTOR], {"x": two["x"]}, np.zeros(3)), "different numbers"),
        (lambda: open_source(str(tmp_path), [IMAGE]), "no images"),
        (lambda: open_source(str(tmp_path), [VECTOR]), "takes no images"),
        (lambda: open_source(str(tmp_path), [IMAGE, VECTOR]), "2 inputs"),
        (lambda: open_source("nowhere", [VECTOR]), "does not exist"),
        (lambda: open_source("nowhere.npz", [VECTOR]), "does not exist"),
        (lambda: open_source("", [VECTOR]), "empty"),
        (lambda: from_arrays("it", [IMAGE], {"image": np.zeros((1, 9, 9, 3), np.uint8)}), "do not fit"),
    ]
    for call, message in cases:
        with pytest.raises(GraphPruneError, match=message):
            call()  # type: ignore[operator]
    (tmp_path / "bad.npz").write_bytes(b"not an archive")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="cannot be read") as refused:
        open_source(str(tmp_path / "bad.npz"), [VECTOR])
    assert "write it anew" in str(refused.value.hint)
    with pytest.raises(DataError, match="as an image"):
        open_source(str(tmp_path), [IMAGE]).read(np.arange(1))


def test_what_a_reader_says_is_not_cut_in_its_middle(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((10, 4), np.float32))
    whole = (tmp_path / "d.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"EOF: reading array header, expected \d+ bytes got \d+") as refused:
        open_source(str(tmp_path / "d.npy"), [VECTOR])
    assert "write it anew" in str(refused.value.hint)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        open_source(str(tmp_path / "d.npz"), [VECTOR])


def test_limits_and_splits_are_even_and_disjoint() -> None:
    source = from_arrays("it", [VECTOR], {"x": np.zeros((100, 4), np.float32)}, np.repeat(np.arange(10), 10))
    labels = source.limited(10).read(np.arange(10)).labels
    assert labels.tolist() == list(range(10))
    rest, held = source.split(25)
    assert len(rest) == 75
    assert len(held) == 25
    assert not set(rest.positions) & set(held.positions)
    for wrong in (0, 100):
        with pytest.raises(UsageError):
            source.split(wrong)
    order = np.arange(99, -1, -1)
    assert next(source.batches(4, order=order)).labels.tolist() == [9, 9, 9, 9]


def test_fixed_batch_sizes() -> None:
    source = from_arrays("it", [VECTOR], {"x": np.arange(28, dtype=np.float32).reshape(7, 4)})
    fixed = [InputSpec("x", np.dtype(np.float32), (3, 4))]
    assert [index.tolist() for index in whole_batches(source, fixed)] == [[0, 1, 2], [3, 4, 5]]
    batches = list(filled(source, fixed))
    assert [(len(batch), real) for batch, real in batches] == [(3, 3), (3, 3), (3, 1)]
    assert [index.tolist() for index in whole_batches(source, [VECTOR], size=4)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(DataError, match="at once"):
        whole_batches(source.limited(2), fixed)
    with pytest.raises(UnsupportedModelError):
        batch_size([*fixed, InputSpec("y", np.dtype(np.float32), (2, 4))])


def test_settings_beside_the_model(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    assert read_settings(model) == Preprocessing()
    (tmp_path / "graphprune.toml").write_text(
        '[data]\nmean = 0.5\nstd = [1, 2, 3]\nimage_size = 224\nlayout = "NHWC"\n'
    )
    assert read_settings(model) == Preprocessing((0.5,), (1.0, 2.0, 3.0), (224, 224), "NHWC")
    (tmp_path / "graphprune.toml").write_text('[data]\nlayout = "nchw"\n')
    assert read_settings(model).layout == "NCHW"
    (tmp_path / "graphprune.toml").write_text("[data]\nimage_size = [0, 3]\n")
    with pytest.raises(UsageError, match=r"toml': image_size cannot be '0x3'"):
        read_settings(model)
    for text in (
        "[data]\nlayout = 3\n",
        '[data]\nlayout = "x"\n',
        "mean = 0.5\n",
        "[dat]\nmean = 0.5\n",
        "data = 1\n",
        "[data]\ncolour = 1\n",
        "[data]\nstd = 0\n",
        "no toml",
        '[data]\nmean = "x"\n',
        "[data]\nimage_size = -1\n",
        "[data]\nsize = 224\n",
    ):
        (tmp_path / "graphprune.toml").write_text(text)
        with pytest.raises(UsageError, match=r"graphprune\.toml"):
            read_settings(model)


def test_the_text_of_options() -> None:
    assert parse_numbers("0.1,0.2,0.3", "--mean") == (0.1, 0.2, 0.3)
    assert parse_size("224") == (224, 224)
    assert parse_size("10x20") == (10, 20)
    for wrong in ("", "1,2", "a"):
        with pytest.raises(UsageError):
            parse_numbers(wrong, "--mean")
    for wrong in ("", "0", "10x", "1x2x3"):
        with pytest.raises(UsageError):
            parse_size(wrong)


def test_pixels_that_are_stored_as_floats_are_not_fed_as_if_they_were_normalised() -> None:
    pixels = np.stack([picture(seed) for seed in range(3)]).astype(np.float32).transpose(0, 3, 1, 2)
    with pytest.raises(DataError, match="whole numbers from 0 to 255"):
        from_arrays("pixels", [IMAGE], {"image": pixels}, None, Preprocessing(MEAN, STD))
    assert len(from_arrays("pixels", [IMAGE], {"image": pixels}, None, Preprocessing())) == 3  # the model may want them
    ready = (pixels / 255 - 0.5) * 2
    assert len(from_arrays("ready", [IMAGE], {"image": ready}, None, Preprocessing(MEAN, STD))) == 3
