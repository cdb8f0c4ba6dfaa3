# SPDX-License-Identifier: Apache-2.0
"""Which axis of every input counts samples: what the inputs declare together decides."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from graphprune.model.graph import Graph
from graphprune.model.sizes.batch_axes import UNCLEAR, Declared, sample_axes
from graphprune.model.sizes.inputs import assumed, input_shapes

CASES: dict[str, tuple[list[list[int | str | None] | None], tuple[int | None, ...]]] = {
    "a single input": ([["h", 3, 64, 64]], (0,)),
    "a single input of one size": ([[1, 3, "h", "w"]], (0,)),
    "a single input with a named batch": ([[10, "batch", 4]], (1,)),
    "a name": ([["batch", 512], [2, "batch", 128]], (0, 1)),
    "a name whatever it is": ([["n", 512], [2, "n", 128]], (0, 1)),
    "a name that all share": ([["steps", "n", 40], [2, "n", 128]], (1, 1)),
    "the first of several": ([["n", "length"], ["n", "length"]], (0, 0)),
    "tokens that all share, and batches of other names": ([["a", "n"], ["b", "n"]], (0, 0)),
    "no names": ([[None, None], [2, None, 128], []], (0, 1, None)),
    "names that differ": ([["a", 40], ["b", 7]], (0, 0)),
    "another length": ([["batch", 3], [1, "length"]], (0, None)),
    "what all samples share": ([["n", 4], [1, 2], [3]], (0, None, None)),
    "fixed": ([[1, 512], [2, 1, 128]], (0, 1)),
    "fixed in another order": ([[2, 1, 128], [1, 512]], (1, 0)),
    "fixed images": ([[1, 3, "h", "w"], [1, 3, "h", "w"]], (0, 0)),
    "fixed and open": ([[1, 512], [2, None, 128]], (0, 1)),
    "fixed and different": ([[3, 4], [2, 4]], (0, 0)),
    "several open axes": ([[None, 4], [2, None, None]], (0, UNCLEAR)),
    "no shape": ([[None, 4], None], (0, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_axes(case: str) -> None:
    shapes, wanted = CASES[case]
    kinds = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape).type for shape in shapes]
    assert sample_axes([Declared.of(kind) for kind in kinds]) == wanted


def test_a_single_sample_is_analysed_wherever_samples_are_counted() -> None:
    shapes: list[list[int | str | None]] = [[None, None], [2, None, 128], []]
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Relu", ["x0"], ["y"])]
    graph = Graph(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)))
    assert input_shapes(graph) == {"x0": (1, 16), "x1": (2, 1, 128), "x2": ()}
    assert input_shapes(graph, other=True) == {"x0": (2, 32), "x1": (2, 2, 128), "x2": ()}
    assert assumed(graph, {}) == {"x0": {1}}
    assert assumed(graph, {"x0": (1, 512)}) == {}
