# SPDX-License-Identifier: Apache-2.0
"""The read-only view of a graph."""

from __future__ import annotations

import pytest
from onnx import helper
from tiny_models import model

from graphprune.errors import ModelFileError
from graphprune.model.graph import Graph, Node

IF = """(float[2,3] x, bool c) => (float[] y) {
    h = Relu (x)
    y = If (c) <
        then_branch = g1 () => (float[2,3] a) { t = Neg (h) a = Add (t, k) },
        else_branch = g2 () => (float[2,3] b) { b = Identity (x) }
    >
}"""


def _graph(text: str) -> Graph:
    return Graph(model(text))


def test_producers_and_consumers() -> None:
    graph = _graph("(float[2,3] x) => (float[] y) { a = Relu (x)\n b = Neg (a)\n y = Add (a, b) }")
    assert [node.op_type for node in graph.nodes] == ["Relu", "Neg", "Add"]
    assert graph.producer["b"] is graph.nodes[1]
    assert [(node.index, slot) for node, slot in graph.consumers["a"]] == [(1, 0), (2, 0)]
    assert "x" not in graph.producer
    assert graph.outputs == ("y",)
    assert graph.opset == 17


def test_initializers_that_are_also_inputs_are_no_inputs() -> None:
    proto = model("(float[2,3] x, float[3] w) => (float[] y) { y = Add (x, w) }", {"w": (3,)})
    assert list(Graph(proto).inputs) == ["x"]


def test_bodies_capture_what_they_read_from_outside() -> None:
    graph = Graph(model(IF, {"k": (2, 3)}))
    assert set(graph.nodes[1].captured) == {"h", "k", "x"}
    assert graph.captured == {"h", "k", "x"}
    assert graph.nodes[0].captured == ()


def test_nested_bodies_capture_through_each_other() -> None:
    inner = helper.make_node(
        "If",
        ["c"],
        ["i"],
        then_branch=helper.make_graph(
            [helper.make_node("Add", ["own", "far"], ["r"])], "deep", [], [helper.make_tensor_value_info("r", 1, [1])]
        ),
        else_branch=helper.make_graph([], "direct", [], [helper.make_tensor_value_info("other", 1, [1])]),
    )
    body = helper.make_graph(
        [helper.make_node("Relu", ["near"], ["own"]), inner], "body", [], [helper.make_tensor_value_info("i", 1, [1])]
    )
    outer = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    assert set(Node(0, outer).captured) == {"near", "c", "far", "other"}


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([("Relu", "missing", "y")], id="nobody-makes-it"),
        pytest.param([("Relu", "a", "y"), ("Neg", "x", "a")], id="later-node-makes-it"),
        pytest.param([("Relu", "y", "y")], id="itself"),
    ],
)
def test_nodes_out_of_order_are_an_error(nodes: list[tuple[str, str, str]]) -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Relu (x) }")
    del proto.graph.node[:]
    proto.graph.node.extend(helper.make_node(op, [source], [target]) for op, source, target in nodes)
    with pytest.raises(ModelFileError, match="which no earlier node makes"):
        Graph(proto)


def test_what_bodies_capture_must_exist_too() -> None:
    proto = model(IF.replace("Neg (h)", "Neg (gone)"), {"k": (2, 3)})
    with pytest.raises(ModelFileError, match="'gone'"):
        Graph(proto)


def test_attributes() -> None:
    node = Node(3, helper.make_node("Pad", ["x"], ["y"], mode="reflect", pads=[1, 2], value=0.5))
    assert node.attribute("mode") == "reflect"
    assert list(node.attribute("pads")) == [1, 2]
    assert node.attribute("missing", 7) == 7


def test_the_default_domain_has_two_names() -> None:
    assert Node(0, helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")).domain == ""
    assert Node(0, helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx.ml")).domain == "ai.onnx.ml"


def test_labels_for_people() -> None:
    assert Node(0, helper.make_node("Relu", ["x"], ["y"], name="act")).label == "act"
    assert Node(0, helper.make_node("Split", ["x"], ["", "b"])).label == "b"
    assert Node(5, helper.make_node("Relu", ["x"], [""])).label == "node 5"
    assert repr(Node(0, helper.make_node("Relu", ["x"], ["a\x1b[31m"]))) == "Relu('a\\x1b[31m')"


def test_unused_names() -> None:
    proto = model("(float[2,3] x) => (float[] y) { a = Relu (x)\n y = Neg (a) }")
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "x.2"
    graph = Graph(proto)
    assert graph.unused("z") == "z"
    assert graph.unused("x") not in {"x", "x.2", "y"}
