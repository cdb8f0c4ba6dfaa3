# SPDX-License-Identifier: Apache-2.0
"""Rows times weights are what the operator computes, at every sampled position."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from tiny_models import model

from graphprune.data.moments import Moments
from graphprune.data.windows import POSITIONS, Grid
from graphprune.model.load import load
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.kernels import find_kernel

CONVS = {
    "plain": ("", (4, 6, 3, 3), (9, 9)),
    "padded": ("<pads = [1, 1, 1, 1]>", (4, 6, 3, 3), (9, 8)),
    "uneven": ("<pads = [0, 2, 1, 0], strides = [2, 1]>", (4, 6, 3, 2), (9, 8)),
    "dilated": ("<pads = [2, 2, 2, 2], dilations = [2, 2], strides = [2, 2]>", (4, 6, 3, 3), (11, 9)),
    "grouped": ("<pads = [1, 1, 1, 1], group = 2>", (4, 3, 3, 3), (9, 9)),
    "depthwise": ("<pads = [1, 1, 1, 1], group = 6>", (6, 1, 3, 3), (9, 9)),
    "same": ('<auto_pad = "SAME_LOWER">', (4, 6, 2, 2), (9, 9)),
    "large": ("", (4, 6, 1, 1), (40, 30)),
}


@pytest.mark.parametrize("case", CONVS)
def test_convolution_rows(case: str) -> None:
    attributes, shape, size = CONVS[case]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 6, *size)).astype(np.float32)
    dims = ",".join(map(str, (3, 6, *size)))
    proto = model(f"(float[{dims}] x) => (float[a,b,c,d] y) {{ y = Conv {attributes} (x, w) }}", {"w": shape})
    y = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    editable = EditableModel(load(proto))
    kernel = find_kernel(editable, editable.graph.nodes[0])
    assert kernel is not None
    grid = kernel.view.grid(y, rng)
    assert np.prod([len(axis) for axis in grid.axes]) <= POSITIONS
    rows, wanted = kernel.view.inputs(x, grid), kernel.view.outputs(y, grid)
    np.testing.assert_allclose(rows @ kernel.matrix(editable.read("w")), wanted, atol=1e-4)
    np.testing.assert_array_equal(kernel.stored(kernel.matrix(editable.read("w"))), editable.read("w"))


@pytest.mark.parametrize(
    ("node", "shape", "x"),
    [
        ("y = MatMul (x, w)", (6, 4), (2, 5, 6)),
        ("y = Gemm <alpha = 2.0> (x, w)", (6, 4), (7, 6)),
        ("y = Gemm <transB = 1> (x, w)", (4, 6), (7, 6)),
        ("v = Transpose <perm = [1, 0]> (w)\n y = MatMul (x, v)", (4, 6), (2, 5, 6)),
    ],
)
def test_matrix_rows(node: str, shape: tuple[int, int], x: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    dims = ",".join(map(str, x))
    out = ",".join("abc"[: len(x)])
    proto = model(f"(float[{dims}] x) => (float[{out}] y) {{ {node} }}", {"w": shape})
    value = rng.standard_normal(x).astype(np.float32)
    y = ReferenceEvaluator(proto).run(None, {"x": value})[0]
    editable = EditableModel(load(proto))
    kernel = find_kernel(editable, editable.graph.nodes[-1])
    assert kernel is not None
    grid = kernel.view.grid(y, rng)
    rows, wanted = kernel.view.inputs(value, grid), kernel.view.outputs(y, grid)
    np.testing.assert_allclose(rows @ kernel.matrix(editable.read("w")), wanted, atol=1e-4)
    np.testing.assert_allclose(kernel.stored(kernel.matrix(editable.read("w"))), editable.read("w"), atol=1e-12)


def test_weights_that_are_shared_or_computed_are_left_alone() -> None:
    shared = model(
        "(float[1,4,5,5] x) => (float[a,b,c,d] y) { h = Conv (x, w)\n y = Conv (h, w) }", {"w": (4, 4, 1, 1)}
    )
    computed = model("(float[1,4] x) => (float[a,b] y) { v = Mul (w, w)\n y = MatMul (x, v) }", {"w": (4, 4)})
    for proto in (shared, computed):
        editable = EditableModel(load(proto))
        assert all(find_kernel(editable, node) is None for node in editable.graph.nodes)


def test_grids_are_spread_and_inside() -> None:
    rng = np.random.default_rng(0)
    for sizes in ((1,), (3, 5), (32, 32), (7, 200), (4, 4, 4), (1000,)):
        grid = Grid.draw(sizes, rng)
        assert np.prod([len(axis) for axis in grid.axes]) <= POSITIONS
        for axis, size in zip(grid.axes, sizes, strict=True):
            assert axis.min() >= 0
            assert axis.max() < size
            assert len(np.unique(axis)) == len(axis)


def test_streamed_moments_are_those_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 500, 5)) + 100).astype(np.float32)
    y = (x[:, :, :3] * 2 + rng.standard_normal((2, 500, 3)) - 50).astype(np.float32)
    moments = Moments()
    for start in range(0, 500, 100):
        moments.add(x[:, start : start + 100], y[:, start : start + 100])
    found = moments.summary()
    assert found.count == 500
    for group in range(2):
        both = np.cov(x[group].astype(np.float64).T, y[group].astype(np.float64).T, bias=True)
        np.testing.assert_allclose(found.xx[group], both[:5, :5], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.xy[group], both[:5, 5:], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.yy[group], np.diagonal(both[5:, 5:]), rtol=1e-4)
        np.testing.assert_allclose(found.x_mean[group], x[group].mean(axis=0), rtol=1e-6)
    single = Moments()
    single.add(x[:1], y[:1])
    np.testing.assert_allclose(single.summary().xx[0], found.xx[0], rtol=1e-4, atol=1e-4)
