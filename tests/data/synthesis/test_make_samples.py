# SPDX-License-Identifier: Apache-2.0
"""Samples have the shape, type and range that a model wants, and whoever tells nothing of them is told what to give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from onnx import ModelProto
from remembering_models import network, trained_on
from tiny_models import model

from graphprune.api import load
from graphprune.data.synthesis.make_samples import SampleOptions, default_count, make_samples, read_request
from graphprune.errors import DataError, UsageError


def image_model(shape: str, weight: tuple[int, ...], kind: str = "float") -> ModelProto:
    cast = "a = Cast <to = 1> (x)" if kind != "float" else "a = Identity (x)"
    moved = "b = Transpose <perm = [0, 3, 1, 2]> (a)" if shape.endswith(" 3") else "b = Identity (a)"
    return model(f"({kind}[{shape}] x) => (float[] y) {{ {cast} {moved} y = Conv (b, w) }}", {"w": weight})


@dataclass(frozen=True)
class Case:
    """A declared input, a convolution that reads it, and the shape of ten samples."""

    name: str
    shape: str
    weight: tuple[int, ...]
    made: tuple[int, ...]
    kind: str = "float"


CASES = [
    Case("colours first", "n, 3, 16, 12", (4, 3, 3, 3), (10, 3, 16, 12)),
    Case("colours last", "n, 16, 12, 3", (4, 3, 3, 3), (10, 16, 12, 3)),
    Case("grey", "n, 1, 8, 8", (4, 1, 3, 3), (10, 1, 8, 8)),
    Case("bands", "n, 7, 8, 8", (4, 7, 3, 3), (10, 7, 8, 8)),
    Case("two channels", "n, 2, 8, 8", (4, 2, 3, 3), (10, 2, 8, 8)),
    Case("pixels of 8 bits", "n, 3, 8, 8", (4, 3, 3, 3), (10, 3, 8, 8), "uint8"),
    Case("four at once", "4, 3, 8, 8", (4, 3, 3, 3), (12, 3, 8, 8)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_images_are_as_the_input_takes_them(case: Case) -> None:
    loaded = load(image_model(case.shape, case.weight, case.kind))
    made = make_samples(loaded, SampleOptions(count=10))
    (values,) = made.source.read(np.arange(len(made.source))).feeds.values()
    assert values.shape == case.made
    assert made.kinds == {"x": "images"}
    if case.kind == "uint8":
        assert values.dtype == np.uint8
        assert values.max() > 200
        assert values.min() < 50
    else:
        assert abs(values.mean()) < 0.2
        assert 0.7 < values.std() < 1.3


def test_samples_are_those_of_the_seed() -> None:
    trained = trained_on(network(), np.random.default_rng(0).standard_normal((64, 3, 12, 12)).astype(np.float32))
    one, same, other = (
        make_samples(trained, SampleOptions(count=16, seed=seed)).source.read(np.arange(16)).feeds["image"]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).mean() > 0.01


def test_samples_are_chosen_that_fit_what_is_remembered() -> None:
    images = 0.4 + 0.2 * np.random.default_rng(0).standard_normal((64, 3, 12, 12)).astype(np.float32)
    made = make_samples(trained_on(network(), images), SampleOptions(count=64))
    assert (len(made.source), made.made) == (64, 256)
    assert made.mismatch is not None
    assert made.mismatch[1] < made.mismatch[0] / 2
    assert made.knowledge == "statistics of BatchNormalization"


def test_tokens_are_rows_of_the_table_and_masks_are_ones() -> None:
    text = """(int64[n, 6] tokens, int64[n, 6] attention_mask) => (float[n, 6, 4] y) {
        rows = Gather (table, tokens)
        wide = Unsqueeze (attention_mask, last)
        factor = Cast <to = 1> (wide)
        y = Mul (rows, factor)
    }"""
    made = make_samples(load(model(text, {"table": (50, 4)}, last=[2])), SampleOptions(count=200))
    feeds = made.source.read(np.arange(200)).feeds
    assert feeds["tokens"].shape == (200, 6)
    assert (feeds["tokens"].min(), feeds["tokens"].max()) == (0, 49)
    assert (feeds["attention_mask"] == 1).all()
    assert "a table of 50 rows" in made.knowledge


def test_a_quantised_input_says_its_range() -> None:
    text = """(float[n, 5] x) => (float[n, 3] y) {
        q = QuantizeLinear (x, step, zero)
        d = DequantizeLinear (q, step, zero)
        y = MatMul (d, w)
    }"""
    proto = model(text, {"w": (5, 3)}, step=np.float32(0.5), zero=np.int8(-28))
    values = make_samples(load(proto), SampleOptions(count=2000)).source.read(np.arange(2000)).feeds["x"]
    assert values.mean() == pytest.approx(13.75, abs=1)  # the middle of -50 to 77.5
    assert values.std() == pytest.approx(127.5 / 6, rel=0.05)


def test_what_the_file_does_not_tell_is_asked_for() -> None:
    loaded = load(model("(float[n, 5] state) => (float[n, 3] y) { y = MatMul (state, w) }", {"w": (5, 3)}))
    with pytest.raises(DataError, match="no samples can be made for input 'state'") as caught:
        make_samples(loaded)
    assert "npz" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("synthetic", (None, "fast")),
        ("synthetic:12", (12, "fast")),
        ("synthetic:fine", (None, "fine")),
        ("synthetic:fine:12", (12, "fine")),
        ("synthetic:fast:7", (7, "fast")),
        ("synthetic:12:fine", None),
        ("synthetic:x", None),
        ("photos", None),
    ],
)
def test_a_request_is_a_word_perhaps_a_quality_and_perhaps_a_number(
    text: str, asked: tuple[object, str] | None
) -> None:
    options = read_request(text)
    assert (None if options is None else (options.count, options.quality)) == asked


def test_a_request_for_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="0 samples"):
        read_request("synthetic:0")


def test_large_images_are_made_in_smaller_numbers() -> None:
    assert default_count({"x": (1, 3, 32, 32)}) == 1024
    assert default_count({"x": (1, 3, 224, 224)}) == 128
    assert default_count({"x": (1, 3, 2000, 2000)}) == 32
