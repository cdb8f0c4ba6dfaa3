# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds of every counted operator against numbers worked out by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune import analyze, load

Shape = tuple[int | str, ...]


class Case(NamedTuple):
    """One node: shapes of its inputs (those of constants as a list), attributes, and what it costs."""

    op: str
    inputs: tuple[Shape | list[int], ...]
    macs: int
    attributes: dict[str, Any]


def case(op: str, *inputs: Shape | list[int], macs: int, **attributes: Any) -> Any:
    shapes = " ".join("x".join(map(str, shape)) + "c" * isinstance(shape, list) for shape in inputs)
    options = " ".join(f"{key}={value}" for key, value in attributes.items())
    return pytest.param(Case(op, inputs, macs, attributes), id=f"{op} {shapes} {options}".strip())


def network(given: Case) -> onnx.ModelProto:
    """Return the node followed by a Relu, which costs nothing."""
    names = [f"x{number}" for number in range(len(given.inputs))]
    node = helper.make_node(given.op, names, ["y"], **given.attributes)
    constants = [
        numpy_helper.from_array(np.ones(shape, dtype=np.float32), name)
        for name, shape in zip(names, given.inputs, strict=True)
        if isinstance(shape, list)
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, given.inputs, strict=True)
        if not isinstance(shape, list)
    ]
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    graph = helper.make_graph([node, helper.make_node("Relu", ["y"], ["z"])], "golden", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)  # the checker wants outputs to have shapes


CONVOLUTIONS = [
    # outputs x positions x (inputs per output x kernel)
    case("Conv", (1, 3, 8, 8), [16, 3, 3, 3], macs=16 * 64 * 27, pads=[1, 1, 1, 1]),
    case("Conv", (1, 3, 8, 8), [16, 3, 3, 3], [16], macs=16 * 64 * 27, pads=[1, 1, 1, 1]),
    case("Conv", (1, 3, 8, 8), [16, 3, 3, 3], macs=16 * 9 * 27, strides=[2, 2]),
    case("Conv", (1, 3, 7, 7), [16, 3, 3, 3], macs=16 * 16 * 27, strides=[2, 2], auto_pad="SAME_UPPER"),
    case("Conv", ("n", 3, 8, 8), [16, 3, 1, 1], macs=16 * 64 * 3),
    case("Conv", (2, 3, 8, 8), [16, 3, 1, 1], macs=2 * 16 * 64 * 3),
    case("Conv", (1, 8, 6, 6), [12, 2, 3, 3], macs=12 * 36 * 18, pads=[1, 1, 1, 1], group=4),
    case("Conv", (1, 4, 5, 5), [8, 1, 3, 3], macs=8 * 25 * 9, pads=[1, 1, 1, 1], group=4),
    case("Conv", (1, 4, 5, 7), [6, 4, 1, 3], macs=6 * 25 * 12),
    case("Conv", (1, 4, 10), [6, 4, 3], macs=6 * 6 * 12, dilations=[2]),
    case("Conv", (1, 2, 4, 4, 4), [3, 2, 2, 2, 2], macs=3 * 27 * 16),
    # inputs x positions of the input x (outputs per input x kernel), whatever the stride
    case("ConvTranspose", (1, 4, 5, 5), [4, 6, 3, 3], macs=4 * 25 * 54),
    case("ConvTranspose", (1, 4, 5, 5), [4, 6, 3, 3], [6], macs=4 * 25 * 54, strides=[2, 2], pads=[1, 1, 1, 1]),
    case("ConvTranspose", (1, 4, 5, 5), [4, 3, 3, 3], macs=4 * 25 * 27, group=2),
    case("ConvTranspose", (1, 4, 6), [4, 2, 4], macs=4 * 6 * 8, strides=[2]),
    case("ConvTranspose", (1, 2, 3, 3, 3), [2, 5, 2, 2, 2], macs=2 * 27 * 40),
]

PRODUCTS = [
    case("Gemm", (5, 7), [7, 3], macs=5 * 7 * 3),
    case("Gemm", (5, 7), [3, 7], [3], macs=5 * 7 * 3, transB=1),
    case("Gemm", (7, 5), [3, 7], macs=5 * 7 * 3, transA=1, transB=1, alpha=0.5),
    case("Gemm", ("n", 7), [7, 3], macs=7 * 3),
    case("MatMul", (5, 7), [7, 3], macs=5 * 7 * 3),
    case("MatMul", [5, 7], (7, 3), macs=5 * 7 * 3),
    case("MatMul", (2, 5, 7), [7, 3], macs=2 * 5 * 7 * 3),
    case("MatMul", (2, 5, 7), (2, 7, 3), macs=2 * 5 * 7 * 3),
    case("MatMul", (2, 1, 5, 7), (4, 7, 3), macs=2 * 4 * 5 * 7 * 3),
    case("MatMul", (7,), [7], macs=7),
    case("MatMul", (5, 7), [7], macs=5 * 7),
    case("MatMul", (7,), [7, 3], macs=7 * 3),
    case("MatMul", (2, 5, 7), [7], macs=2 * 5 * 7),
    case("MatMul", (7,), (4, 7, 3), macs=4 * 7 * 3),
]


@pytest.mark.parametrize("given", CONVOLUTIONS + PRODUCTS)
def test_an_operator_costs_what_a_hand_count_gives(given: Case) -> None:
    model = network(given)
    onnx.checker.check_model(model, full_check=True)
    analysis = analyze(load(model))
    assert analysis.cost.flops(analysis.cost.sizes) == 2 * given.macs
    assert [layer.flops(analysis.cost.sizes) for layer in analysis.layers] == [2 * given.macs]


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "GlobalAveragePool", "Softmax", "LRN"])
def test_work_per_element_is_not_counted(op: str) -> None:
    attributes = {"size": 3} if op == "LRN" else {}
    analysis = analyze(load(network(Case(op, ((1, 4, 6, 6),), 0, attributes))))
    assert analysis.cost.flops(analysis.cost.sizes) == 0
    assert analysis.layers == ()
