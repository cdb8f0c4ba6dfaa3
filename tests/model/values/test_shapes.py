# SPDX-License-Identifier: Apache-2.0
"""Static shapes, and small values that are computed from shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_models import chain, model

from graphprune import api
from graphprune.errors import UsageError
from graphprune.model.graph import Graph, Node
from graphprune.model.load import load
from graphprune.model.sizes.inputs import input_shapes
from graphprune.model.values import forward as shaping
from graphprune.model.values.shapes import LARGEST_VALUE, Shapes, infer


def _infer(proto: ModelProto, **given: tuple[int, ...]) -> Shapes:
    graph = Graph(proto)
    return infer(graph, numpy_helper.to_array, input_shapes(graph, given))


def _inputs(text: str, given: Any = None, *, other: bool = False) -> dict[str, tuple[int, ...]]:
    return input_shapes(Graph(model(f"({text}) => (float[] y) {{ y = Relu (x) }}")), given, other=other)


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        pytest.param("float[2,3] x", (2, 3), (2, 3), id="fixed"),
        pytest.param("float[N,3] x", (1, 3), (2, 3), id="batch"),
        pytest.param("float[N,3,H,W] x", (1, 3, 224, 224), (2, 3, 448, 448), id="image"),
        pytest.param("float[N,T,64] x", (1, 16, 64), (2, 32, 64), id="tokens"),
        pytest.param("float[N,1,D,H,W] x", (1, 1, 112, 112, 112), (2, 1, 224, 224, 224), id="volume"),
        pytest.param("float x", (), (), id="scalar"),
    ],
)
def test_dynamic_dimensions_get_two_sizes(text: str, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    assert _inputs(text)["x"] == first
    assert _inputs(text, other=True)["x"] == second


def test_given_shapes_win() -> None:
    assert _inputs("float[N,3,H,W] x", {"x": (4, 3, 32, 64)})["x"] == (4, 3, 32, 64)
    assert _inputs("float[N,3,H,W] x", {"x": (4, 3, 32, 64)}, other=True)["x"] == (5, 3, 64, 128)


def test_sizes_below_one_mean_dynamic() -> None:
    proto = model("(float[1,3] x) => (float[1,3] y) { y = Relu (x) }")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert input_shapes(Graph(proto)) == {"x": (1, 3)}
    assert input_shapes(Graph(proto), other=True) == {"x": (2, 3)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"z": (1, 3)}, "'z', which is no input", id="unknown-input"),
        pytest.param({"x": (1, 3, 5)}, r"shape \?x3, got 1x3x5", id="other-rank"),
        pytest.param({"x": (1, 4)}, r"shape \?x3, got 1x4", id="fixed-dimension"),
        pytest.param({"x": (0, 3)}, r"got 0x3", id="zero"),
        pytest.param({"x": (-1, 3)}, r"got -1x3", id="negative"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(given: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _inputs("float[N,3] x", given)


CHAIN = """(float[N,3,H,W] x) => (float[a,b] y) {
    h = Conv <strides = [2, 2]> (x, w)
    s = Shape (h)
    n = Gather (s, zero)
    u = Unsqueeze (n, axes)
    to = Concat <axis = 0> (u, rest)
    y = Reshape (h, to)
}"""


def test_shapes_and_values_computed_from_shapes() -> None:
    found = _infer(model(CHAIN, {"w": (8, 3, 3, 3)}, zero=np.int64(0), axes=[0], rest=[-1]), x=(2, 3, 9, 9))
    assert found.dims["h"] == (2, 8, 4, 4)
    assert found.values["s"].tolist() == [2, 8, 4, 4]
    assert found.values["to"].tolist() == [2, -1]
    assert found.dims["y"] == (2, 128)
    assert found.dtypes["to"] == TensorProto.INT64
    assert {"s", "n", "u", "to"} <= found.derived <= found.constant
    assert {"w", "rest"} <= found.constant - found.derived
    assert not {"x", "h", "y"} & found.constant


@pytest.mark.parametrize(
    ("node", "value"),
    [
        pytest.param("s = Shape <start = 1> (x)", [3, 4], id="start"),
        pytest.param("s = Shape <start = -1> (x)", [4], id="negative-start"),
        pytest.param("s = Shape <end = -1> (x)", [2, 3], id="negative-end"),
        pytest.param("s = Size (x)", 24, id="size"),
    ],
)
def test_parts_of_shapes(node: str, value: Any) -> None:
    text = f"(float[2,3,4] x) => (int64[] y) {{ {node}\n y = Identity (s) }}"
    assert _infer(model(text)).values["s"].tolist() == value


def test_what_data_decide_is_not_constant() -> None:
    found = _infer(model("(float[2,3] x) => (int64[a,b] y) { y = NonZero (x) }"))
    assert "y" not in found.constant
    assert "y" not in found.dims


def test_random_values_are_not_constant() -> None:
    found = _infer(model("(float[2] x) => (float[] y) { r = RandomNormal <shape = [2]> ()\n y = Add (x, r) }"))
    assert "r" not in found.constant
    assert found.dims["r"] == (2,)


def test_the_type_of_an_activation_does_not_make_a_constant_vary() -> None:
    found = _infer(model("(float[2] x) => (float[] y) { b = CastLike (k, x)\n y = Add (x, b) }", opset=19, k=[1, 2]))
    assert found.values["b"].tolist() == [1.0, 2.0]
    assert found.values["b"].dtype == np.float32


def test_inference_goes_on_behind_a_computed_target() -> None:
    """The target goes through floats, where the inference of onnx loses it."""
    text = """(float[2,8,6] x) => (float[a,b] y) {
        s = Shape (x)
        f = Cast <to = 1> (s)
        g = Mul (f, one)
        i = Cast <to = 7> (g)
        c = Gather (i, index)
        to = Concat <axis = 0> (c, rest)
        r = Reshape (x, to)
        y = Relu (r)
    }"""
    found = _infer(model(text, index=[0], rest=[-1], one=np.ones(1, np.float32)))
    assert found.dims["y"] == (2, 48)


def test_large_constants_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = shaping.evaluate

    def watch(node: Node, *arguments: Any) -> Any:
        seen.append(node.label)
        return original(node, *arguments)

    monkeypatch.setattr(shaping, "evaluate", watch)
    text = """(float[2,3] x) => (float[] y) {
        t = Transpose (w)
        u = Neg (k)
        a = MatMul (x, t)
        y = Add (a, u)
    }"""
    found = _infer(model(text, {"w": (LARGEST_VALUE, 3), "k": (1,)}))
    assert seen == ["u"]
    assert "t" in found.constant
    assert "t" not in found.values
    assert "w" not in found.values
    assert found.dims["t"] == (3, LARGEST_VALUE)


BIG = [1 << 14, 1 << 14]
BOMBS: dict[str, tuple[str, dict[str, Any]]] = {
    "ConstantOfShape": ("b = ConstantOfShape (i)", {}),
    "Expand": ("b = Expand (f, i)", {}),
    "Tile": ("b = Tile (one, i)", {"one": np.ones((1, 1), np.float32)}),
    "Range": (
        "m = ReduceProd <keepdims = 0> (i)\n b = Range (zero, m, one)",
        {"zero": np.int64(0), "one": np.int64(1)},
    ),
    "Pad": ("p = Concat <axis = 0> (i, i)\n b = Pad (one, p)", {"one": np.ones((1, 1), np.float32)}),
    "Resize": ("b = Resize (one, , , i)", {"one": np.ones((1, 1), np.float32)}),
    "OneHot": (
        "m = ReduceProd <keepdims = 0> (i)\n b = OneHot (zero, m, values)",
        {"zero": [0], "values": np.array([0, 1], np.float32)},
    ),
    "broadcast": (
        "r = Reshape (line, column)\n b = Add (r, line)",
        {"line": np.ones(1 << 14, np.float32), "column": [-1, 1]},
    ),
    "outer-product": (
        "r = Reshape (line, column)\n q = Reshape (line, row)\n b = MatMul (r, q)",
        {"line": np.ones(1 << 14, np.float32), "column": [-1, 1], "row": [1, -1]},
    ),
    "upsample-by-scales": ("b = Resize (one, , f)", {"one": np.ones((1, 1), np.float32)}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_values_that_unfold_are_not_evaluated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes that stand for gigabytes; the sizes are computed so that inference does not know them either."""
    text, constants = BOMBS[name]
    seen: list[str] = []
    original = shaping.evaluate

    def watch(node: Node, *arguments: Any) -> Any:
        seen.append(node.label)
        return original(node, *arguments) if node.label != "b" else None

    monkeypatch.setattr(shaping, "evaluate", watch)
    proto = model(
        f"(float[2] x) => (float[] y) {{ f = Exp (logs) g = Round (f) i = Cast <to = 7> (g) {text}\n y = Relu (x) }}",
        logs=np.log(np.asarray(BIG, np.float32)),
        **constants,
    )
    found = _infer(proto)
    assert found.values["i"].tolist() == BIG
    assert "b" not in seen
    assert "b" not in found.values


def test_small_ones_are_evaluated() -> None:
    text = """(float[2] x) => (float[] y) {
        i = Shape (x) z = ConstantOfShape <value = int64[1] {0}> (i) f = Cast <to = 1> (z) y = Add (x, f)
    }"""
    assert _infer(model(text)).values["z"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("value", "flows"), [("float[1] {0.5}", True), ("float[1] {0}", True), ("int64[1] {0}", False)]
)
def test_real_numbers_in_an_open_shape_flow(value: str, flows: bool) -> None:
    text = f"""(float[2] x) => (float[] y) {{
        i = Shape (x) z = ConstantOfShape <value = {value}> (i) f = Cast <to = 1> (z) y = Add (x, f)
    }}"""
    assert ("z" not in _infer(model(text)).constant) == flows


def test_a_node_that_fails_leaves_its_value_unknown() -> None:
    proto = model("(float[2] x) => (float[a,b] y) { r = Reshape (k, to)\n y = Add (x, r) }", k=[1, 2, 3], to=[2, 2])
    found = _infer(proto)
    assert "r" not in found.values
    assert "r" in found.constant


def test_an_input_without_a_shape_needs_one() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        )
    )
    graph = Graph(load(model).proto)
    with pytest.raises(UsageError, match="declares no shape"):
        input_shapes(graph)
    assert input_shapes(graph, {"x": (1, 2)}) == {"x": (1, 2)}


def test_a_large_constant_node_is_a_weight_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model("(float[2,3] x) => (float[] y) { a = MatMul (x, w)\n y = Relu (a) }", {"w": (3, LARGEST_VALUE)})
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=proto.graph.initializer[0]))
    del proto.graph.initializer[:]
    monkeypatch.setattr(shaping, "evaluate", lambda *_: pytest.fail("evaluated"))
    found = _infer(proto)
    assert "w" in found.constant
    assert "w" not in found.values
    assert found.dims["y"] == (2, LARGEST_VALUE)


def test_dimensions_with_one_name_have_one_size() -> None:
    proto = model("(float[N,3,H,H] x, float[1,N,4] state) => (float[] y) { y = Relu (x) }")
    assert input_shapes(Graph(proto)) == {"x": (1, 3, 224, 224), "state": (1, 1, 4)}
    assert input_shapes(Graph(proto), other=True) == {"x": (2, 3, 448, 448), "state": (1, 2, 4)}
    assert input_shapes(Graph(proto), {"x": (5, 3, 8, 8)})["state"] == (1, 5, 4)
    with pytest.raises(UsageError, match="given as 5 and as 2"):
        input_shapes(Graph(proto), {"x": (5, 3, 8, 8), "state": (1, 2, 4)})


def test_what_is_an_input_and_an_output_at_once_has_its_shape() -> None:
    proto = chain("m = Relu (h)")
    proto.graph.output.append(proto.graph.input[0])
    analysis = api.analyze(api.load(proto))
    assert analysis.shapes.dims["x"] == (2, 3, 6, 6)
    assert [group.size for group in analysis.groups] == [8]
