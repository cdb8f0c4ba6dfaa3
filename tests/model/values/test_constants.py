# SPDX-License-Identifier: Apache-2.0
"""Constants: where they are stored, what they are, and who reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from tiny_models import model

from graphprune.errors import UnsafeModelError
from graphprune.model.evaluation.arithmetic import evaluate
from graphprune.model.graph import Graph, Node
from graphprune.model.sizes.inputs import input_shapes
from graphprune.model.values import constants
from graphprune.model.values.constants import Constants
from graphprune.model.values.shapes import LARGEST_VALUE, infer


def _constants(proto: ModelProto) -> Constants:
    graph = Graph(proto)
    return Constants(graph, infer(graph, numpy_helper.to_array, input_shapes(graph)), numpy_helper.to_array)


def _behind(text: str, shape: tuple[int, ...] = (4, 3), **constants: Any) -> tuple[ModelProto, Constants]:
    """Constants of a model in which `v` is computed of the weight `w`."""
    proto = model(f"(float[2] x) => (float[] y) {{ {text}\n y = Relu (x)\n z = Neg (v) }}", {"w": shape}, **constants)
    return proto, _constants(proto)


@pytest.mark.parametrize(
    ("text", "axes", "constants"),
    [
        pytest.param("v = Identity (w)", (0, 1), {}, id="identity"),
        pytest.param("v = Cast <to = 10> (w)", (0, 1), {}, id="cast"),
        pytest.param("v = Transpose (w)", (1, 0), {}, id="transpose-by-default"),
        pytest.param("t = Transpose <perm = [1, 0]> (w)\n v = Identity (t)", (1, 0), {}, id="chain"),
        pytest.param("v = Unsqueeze (w, at)", (None, 0, 1), {"at": [0]}, id="unsqueeze"),
        pytest.param("v = Unsqueeze (w, at)", (0, None, 1, None), {"at": [-1, 1]}, id="unsqueeze-two"),
        pytest.param("u = Unsqueeze (w, at)\n v = Squeeze (u, at)", (0, 1), {"at": [1]}, id="squeeze"),
        pytest.param("v = Reshape (w, to)", (0, None, 1, None), {"to": [4, 1, 3, 1]}, id="reshape-adds-ones"),
        pytest.param("v = Gather (w, at)", (None, 1), {"at": [2, 0]}, id="gather-rows"),
        pytest.param("v = Gather <axis = 1> (w, at)", (0,), {"at": np.int64(1)}, id="gather-one-column"),
        pytest.param("v = Gather <axis = -1> (w, at)", (0, None, None), {"at": np.zeros((2, 2), np.int64)}, id="table"),
    ],
)
def test_layout_only_nodes_are_followed(text: str, axes: tuple[int | None, ...], constants: dict[str, Any]) -> None:
    _, found = _behind(text, **constants)
    root = found.trace("v")
    assert (root.tensor, root.axes) == ("w", axes)


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        pytest.param("v = Neg (w)", {}, id="computes"),
        pytest.param("v = Reshape (w, to)", {"to": [12]}, id="merges-axes"),
        pytest.param("v = Reshape (w, to)", {"to": [3, 4]}, id="regroups"),
        pytest.param("v = Mul (w, k)", {"k": np.ones(3, np.float32)}, id="scales"),
    ],
)
def test_computed_values_are_their_own_root(text: str, constants: dict[str, Any]) -> None:
    _, found = _behind(text, **constants)
    assert found.trace("v").tensor == "v"
    assert found.stored("v") is None


def test_the_walk_ends_at_what_is_computed() -> None:
    _, found = _behind("n = Neg (w)\n t = Transpose (n)\n v = Unsqueeze (t, at)", at=[0])
    root = found.trace("v")
    assert (root.tensor, root.axes) == ("n", (None, 1, 0))


def test_constant_nodes_are_stored() -> None:
    proto = model("(float[2] x) => (float[] y) { k = Constant <value = float[2] {1.0, 2.0}> ()\n y = Add (x, k) }")
    found = _constants(proto)
    assert found.stored("k") is not None
    assert found.trace("k").tensor == "k"
    assert found.array("k").tolist() == [1.0, 2.0]
    assert "k" in found
    assert "x" not in found


def test_constant_nodes_without_a_tensor_are_computed() -> None:
    proto = model("(float[2] x) => (float[] y) { k = Constant <value_floats = [1.0, 2.0]> ()\n y = Add (x, k) }")
    found = _constants(proto)
    assert found.stored("k") is None
    assert found.array("k").tolist() == [1.0, 2.0]


@pytest.mark.parametrize("rows", [4, LARGEST_VALUE])
def test_arrays_are_computed_small_and_large(rows: int) -> None:
    proto, found = _behind("t = Transpose (w)\n n = Neg (t)\n v = Mul (n, n)", (rows, 3))
    weight = numpy_helper.to_array(proto.graph.initializer[0])
    np.testing.assert_array_equal(found.array("v"), weight.T**2)
    np.testing.assert_array_equal(found.array("w"), weight)


@pytest.mark.parametrize("name", ["x", "y", "nothing"])
def test_what_is_not_constant_has_no_array(name: str) -> None:
    _, found = _behind("v = Neg (w)")
    with pytest.raises(KeyError):
        found.array(name)


READ = """(float[2,4] x) => (float[] y) {
    t = Transpose (w)
    s = Shape (w)
    a = MatMul (x, w)
    b = MatMul (a, t)
    n = Neg (w)
    y = MatMul (b, n)
}"""


def test_readers_are_seen_through_layout_and_shapes_do_not_read() -> None:
    found = _constants(model(READ, {"w": (4, 4)}))
    assert sorted((node.label, slot) for node, slot in found.readers("w")) == [("a", 1), ("b", 1), ("n", 0)]


def test_a_weight_that_is_a_graph_output_is_read() -> None:
    proto = model("(float[2,4] x) => (float[] y, float[] t) { t = Transpose (w)\n y = MatMul (x, w) }", {"w": (4, 4)})
    assert sorted(slot for _, slot in _constants(proto).readers("w")) == [-1, 1]


def test_absorbed_are_those_that_only_the_folded_value_needs() -> None:
    text = """(float[2,4] x) => (float[] y) {
        m = ReduceMean <axes = [0]> (w)
        c = Sub (w, m)
        n = Mul (c, scale)
        a = MatMul (x, n)
        b = Mul (a, shared)
        q = Add (n, shared)
        y = MatMul (b, q)
    }"""
    found = _constants(model(text, {"w": (4, 4), "scale": (4,), "shared": (4,)}))
    assert found.absorbed(["n"]) == ["scale", "w"]
    assert found.absorbed(["n", "q"]) == ["scale", "w"]
    assert found.absorbed(["m"]) == []


SLICES = "\n".join(f"s{at} = Slice (b, at{at}, to{at})\n z{at} = Neg (s{at})" for at in range(20))
PLACES = {f"{kind}{at}": [at + by] for at in range(20) for kind, by in (("at", 0), ("to", 2))}


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    evaluated: list[str] = []

    def count(node: Node, *rest: Any, **options: Any) -> list[Any]:
        evaluated.append(node.op_type)
        return evaluate(node, *rest, **options)

    monkeypatch.setattr(constants, "evaluate", count)
    return evaluated


def test_what_many_constants_are_made_of_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = _behind(f"b = Exp (w)\n{SLICES}\n v = Neg (b)", (300, 300), **PLACES)
    evaluated = _counted(monkeypatch)
    parts = [found.array(f"s{at}") for at in range(20)]
    assert evaluated.count("Exp") == 1
    assert all(np.array_equal(part, found.array("b")[at : at + 2]) for at, part in enumerate(parts))


def test_what_is_not_kept_is_not_computed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base that is too large to be kept, and so many parts of it that each is cheap and all are not."""
    monkeypatch.setattr(constants, "_MOST_KEPT", 1 << 10)
    monkeypatch.setattr(constants, "_MOST_WORK_EVER", 1 << 20)
    monkeypatch.setattr(constants, "_TIMES_STORED_EVER", 30)
    _, found = _behind(f"b = Exp (w)\n{SLICES}\n v = Neg (b)", (300, 300), **PLACES)
    evaluated = _counted(monkeypatch)
    with pytest.raises(UnsafeModelError, match="take far longer to compute"):
        for at in range(20):
            found.array(f"s{at}")
    assert 1 < evaluated.count("Exp") < 10
