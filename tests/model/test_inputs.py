# SPDX-License-Identifier: Apache-2.0
"""Sizes of open input dimensions: those with one name agree, those without a name do not have to."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from graphprune.errors import UsageError
from graphprune.model.graph import Graph
from graphprune.model.inputs import input_shapes


def graph(*shapes: list[int | str]) -> Graph:
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Relu", ["x0"], ["y"])]
    return Graph(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)))


@pytest.mark.parametrize("open_", ["?", "-1", "", "*"])
def test_what_is_no_name_may_have_any_sizes(open_: str) -> None:
    given = {"x0": (1, 3, 48, 192)}
    assert input_shapes(graph([open_, 3, open_, open_]), given) == given


def test_a_name_has_one_size() -> None:
    two = graph(["n", 3, "side", "side"], ["n", 7])
    assert input_shapes(two, {"x0": (4, 3, 8, 8)})["x1"] == (4, 7)
    with pytest.raises(UsageError, match="the dimension 'side' is given as 8 and as 9"):
        input_shapes(two, {"x0": (4, 3, 8, 9)})


def test_the_second_size_differs_wherever_a_dimension_is_open() -> None:
    first, second = (input_shapes(graph(["?", 3, "?", "w"]), {}, other=other)["x0"] for other in (False, True))
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, True, False, False]
