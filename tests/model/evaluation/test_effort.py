# SPDX-License-Identifier: Apache-2.0
"""Effort: multiply-adds and samples of operators, by hand."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import helper

from graphprune.model.evaluation.effort import effort
from graphprune.model.graph import Node


@pytest.mark.parametrize(
    ("op_type", "shapes", "made", "attributes", "expected"),
    [
        ("Relu", [(4, 4)], (4, 4), {}, 0),
        ("Conv", [(1, 8, 10, 10), (16, 8, 3, 3)], (1, 16, 8, 8), {}, 16 * 64 * 72 / 8),
        ("Conv", [(1, 8, 10, 10), (8, 1, 3, 3)], (1, 8, 8, 8), {"group": 8}, 8 * 64 * 9 / 8),
        ("ConvTranspose", [(1, 8, 4, 4), (8, 6, 3, 3)], (1, 6, 6, 6), {}, 8 * 16 * 54 / 8),
        ("DeformConv", [(1, 8, 4, 4), (8, 8, 1, 1), (1, 2, 4, 4)], (1, 8, 4, 4), {}, 16 * 128 * 8 / 8),
        ("QLinearConv", [(1, 8, 4, 4), (), (), (8, 8, 1, 1)], (1, 8, 4, 4), {}, 128),
        ("LpPool", [(1, 2, 9, 9)], (1, 2, 7, 7), {"kernel_shape": [3, 3]}, 98 * 9),
        ("MaxPool", [(1, 2, 9, 9)], (1, 2, 7, 7), {"kernel_shape": [3, 3]}, 98 * 9),
        ("LRN", [(1, 8, 4, 4)], (1, 8, 4, 4), {"size": 5}, 128 * 5),
        ("MatMul", [(5, 4, 3), (5, 3, 2)], (5, 4, 2), {}, 40 * 3 / 8),
        ("Gemm", [(3, 4), (3, 2)], (4, 2), {"transA": 1}, 8 * 3 / 8),
        ("Einsum", [(4, 5), (5, 6)], (4, 6), {"equation": "ij,jk->ik"}, 120 / 8),
        ("Einsum", [(4,), (5,), (6,)], (4, 5, 6), {"equation": "i,j,k->ijk"}, (20 + 120) / 8),
        ("LSTM", [(7, 2, 3), (1, 16, 3), (1, 16, 4)], (7, 1, 2, 4), {"hidden_size": 4}, 14 * (48 + 64) / 8),
        ("NonMaxSuppression", [(1, 50, 4), (1, 2, 50)], (), {}, 100 * 50),
        ("RoiAlign", [(1, 1, 8, 8), (3, 4), (3,)], (3, 1, 2, 2), {"sampling_ratio": 10}, 12 * 100 * 8),
        ("GridSample", [(1, 1, 8, 8), (1, 4, 4, 2)], (1, 1, 4, 4), {}, 16 * 16),
        ("Det", [(6, 6)], (), {}, 36 * 6),
        ("TfIdfVectorizer", [(100,)], (2,), {"max_skip_count": 9, "max_gram_length": 3}, 100 * 10 * 3),
    ],
)
def test_steps_are_counted(
    op_type: str, shapes: list[tuple[int, ...]], made: tuple[int, ...], attributes: dict[str, Any], expected: float
) -> None:
    names = [f"i{at}" for at in range(len(shapes))]
    node = Node(0, helper.make_node(op_type, names, ["o"], **attributes))
    dims = {**dict(zip(names, shapes, strict=True)), "o": made}
    moved = effort(Node(0, helper.make_node("Identity", names, ["o"])), dims)
    assert effort(node, dims) - moved == pytest.approx(expected)


@pytest.mark.parametrize("op_type", ["Conv", "Einsum", "MaxPool", "LSTM"])
def test_what_does_not_fit_an_operator_is_only_moved(op_type: str) -> None:
    node = Node(0, helper.make_node(op_type, ["i"], ["o"], equation="ab,bc"))
    assert effort(node, {"i": (3,), "o": (4,)}) == 7
