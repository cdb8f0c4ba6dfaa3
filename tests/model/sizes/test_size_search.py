# SPDX-License-Identifier: Apache-2.0
"""Sizes that a graph fixes behind open inputs are computed, through the real command line where that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from PIL import Image
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.cli import main
from graphprune.model.load import load
from graphprune.model.sizes.usual_shapes import fixed_shapes, usual_shapes

ROWS = "f = Reshape (p, to)\n y = Gemm (f, last)"
FLAT = "f = Flatten (p)\n y = Gemm (f, last)"


def classifier(tail: str, last: tuple[int, ...], dims: str = "n,3,h,w", **constants: Any) -> ModelProto:
    """Return a network that halves its maps three times: rounded up twice, and then down."""
    tables = {name: value for name, value in constants.items() if isinstance(value, tuple)}
    numbers = {name: value for name, value in constants.items() if isinstance(value, list)}
    return model(
        f"""(float[{dims}] x) => (float[a,b] y) {{
            a = Conv <strides = [2, 2], pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, first)
            c = Relu (a)
            b = Conv <strides = [2, 2], pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (c, middle)
            r = Relu (b)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            {tail}
        }}""",
        {"first": (8, 3, 3, 3), "middle": (16, 8, 3, 3), "last": last, **tables},
        **numbers,
    )


def text_recogniser(height: int) -> ModelProto:
    return model(
        """(float[n,c,h,w] x) => (float[a,b,d] y) {
            f = Conv <strides = [8, 1], kernel_shape = [8, 1]> (x, first)
            g = Conv (f, middle)
            s = Squeeze (g, at)
            t = Transpose <perm = [0, 2, 1]> (s)
            y = MatMul (t, last)
        }""",
        {"first": (8, 3, 8, 1), "middle": (6, 8, height // 8, 1), "last": (6, 5)},
        at=[2],
    )


def patches() -> ModelProto:
    return model(
        """(float[n,3,h,w] x) => (float[a,b,d] y) {
            f = Conv <strides = [14, 14], kernel_shape = [14, 14]> (x, first)
            s = Reshape (f, to)
            t = Transpose <perm = [0, 2, 1]> (s)
            c = Add (t, positions)
            y = MatMul (c, last)
        }""",
        {"first": (8, 3, 14, 14), "positions": (1, 37 * 37, 8), "last": (8, 5)},
        to=[0, 0, -1],
    )


def sound() -> ModelProto:
    return model(
        """(float[n,1,t] x) => (float[a,b] y) {
            f = Conv <strides = [4], kernel_shape = [8]> (x, first)
            s = Flatten (f)
            y = Gemm (s, last)
        }""",
        {"first": (8, 1, 8), "last": (8 * 123, 5)},
    )


@pytest.mark.parametrize(
    ("proto", "shape"),
    [
        pytest.param(classifier(ROWS, (16 * 81, 10), to=[0, 16 * 81]), (1, 3, 72, 72), id="reshape"),
        pytest.param(classifier(ROWS, (16 * 81, 10), to=[-1, 16 * 81]), (1, 3, 72, 72), id="rows"),
        pytest.param(classifier(FLAT, (16 * 81, 10)), (1, 3, 72, 72), id="flatten"),
        pytest.param(classifier(FLAT, (16 * 81, 10), "4,3,h,w"), (4, 3, 72, 72), id="batch"),
        pytest.param(classifier(FLAT, (16 * 120, 10)), (1, 3, 80, 96), id="no square"),
        pytest.param(classifier(FLAT, (16 * 9 * 21, 10), "n,3,72,w"), (1, 3, 72, 168), id="width only"),
        pytest.param(
            classifier("q = Add (p, table)\n " + FLAT.replace("(p)", "(q)"), (16 * 120, 10), table=(1, 16, 6, 20)),
            (1, 3, 48, 160),
            id="table of positions",
        ),
        pytest.param(text_recogniser(40), (1, 3, 40, 224), id="text of height 40"),
        pytest.param(text_recogniser(48), (1, 3, 48, 48), id="text of height 48"),
        pytest.param(patches(), (1, 3, 518, 518), id="patches"),
        pytest.param(sound(), (1, 1, 496), id="sound"),
    ],
)
def test_a_size_that_no_ladder_has_is_computed(proto: ModelProto, shape: tuple[int, ...]) -> None:
    assert Analysis(load(proto)).input_shapes == {"x": shape}


def test_rows_that_would_be_parts_of_samples_are_made_whole() -> None:
    # 224 fits, too: an image would become 196 rows.
    assert usual_shapes(load(classifier(ROWS, (64, 10), to=[-1, 64]))) == {"x": (1, 3, 16, 16)}


def test_rows_that_are_positions_stay() -> None:
    tail = "t = Transpose <perm = [0, 2, 3, 1]> (p)\n f = Reshape (t, to)\n y = Gemm (f, last)"
    for row in (16, 8):  # all channels of a position, or half of them: heads of detectors have several boxes there
        assert usual_shapes(load(classifier(tail, (row, 10), to=[-1, row]))) == {"x": (1, 3, 224, 224)}


def test_only_what_a_graph_fixes_is_fixed() -> None:
    assert fixed_shapes(load(classifier(FLAT, (16 * 81, 10)))) == {"x": (1, 3, 72, 72)}
    assert not fixed_shapes(load(text_recogniser(48)))  # its width is open
    assert not fixed_shapes(load(classifier("y = GlobalAveragePool (p)", (1, 1))))


def test_a_dimension_that_is_free_has_a_second_size_where_another_is_fixed() -> None:
    shapes = Analysis(load(text_recogniser(40))).other_shapes
    assert shapes is not None and shapes.dims["x"] == (2, 3, 40, 448)
    whole = Analysis(load(classifier(FLAT, (16 * 81, 10)))).other_shapes
    assert whole is not None and whole.dims["x"] == (2, 3, 72, 72)


def test_the_command_line_prunes_and_measures_at_the_computed_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "net.onnx", tmp_path / "photos"
    path.write_bytes(classifier(ROWS, (16 * 81, 10), to=[0, 16 * 81]).SerializeToString())
    folder.mkdir()
    random = np.random.default_rng(0)
    for at in range(4):  # of different sizes, none of which the network takes
        pixels = random.integers(0, 256, (90 + at, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{at}.png")
    assert main(["inspect", str(path)]) == 0
    assert "--input-shape x=1x3x72x72" in capsys.readouterr().out
    assert main(["solve", str(path), "--flops", "0.6", "--calib", str(folder)]) == 0
    pruned = str(tmp_path / "net.pruned.onnx")
    for source in (str(folder), "synthetic:4"):
        assert main(["eval", pruned, "--teacher", str(path), "--data", source]) == 0, capsys.readouterr().err


def test_where_no_size_fits_the_hint_is_about_this_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(classifier(FLAT, (7919, 10)).SerializeToString())  # a prime number, and 16 channels
    assert main(["inspect", str(path)]) == 2
    assert "in place of N: --input-shape x=1x3xNxN" in capsys.readouterr().err
