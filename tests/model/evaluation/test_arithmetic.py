# SPDX-License-Identifier: Apache-2.0
"""Constants of untrusted files: bounded work in this process, a child with limits for all else."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny_models import chain, model

from graphprune.analysis.analysis import Analysis
from graphprune.model.children.allowance import Allowance
from graphprune.model.children.sandbox import ChildError
from graphprune.model.evaluation import constant_evaluation, proportion
from graphprune.model.evaluation.arithmetic import NotComputedError, evaluate, work
from graphprune.model.graph import Node
from graphprune.model.load import load
from graphprune.model.values.shapes import infer

FLOATS = np.ones((4, 3), np.float32)


def _node(op_type: str, inputs: list[Any], **attributes: Any) -> tuple[Node, list[Any]]:
    names = [f"i{slot}" for slot in range(len(inputs))]
    return Node(0, helper.make_node(op_type, names, ["y"], **attributes)), [np.asarray(value) for value in inputs]


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("RegexFullMatch", [np.array(["a" * 40], object)], {"pattern": "(a+)+b"}),
        ("StringConcat", [np.array(["ab"], object)] * 2, {}),
        ("StringSplit", [np.array(["a b"], object)], {"delimiter": " "}),
        ("StringNormalizer", [np.array(["a"], object)], {}),
        ("RoiAlign", [np.ones((1, 1, 4, 4)), np.ones((1, 4)), [0]], {"sampling_ratio": 2**30}),
        ("LpPool", [np.ones((1, 1, 4, 4))], {"kernel_shape": [2, 2]}),
        ("GridSample", [np.ones((1, 1, 4, 4)), np.ones((1, 9, 9, 2))], {}),
        ("Conv", [np.ones((1, 1, 4, 4)), np.ones((1, 1, 1, 1))], {}),
        ("Resize", [np.ones(4), [], [10.0**6]], {}),
        ("ConstantOfShape", [[2**40]], {}),
        ("ConstantOfShape", [[2**62, 2**62]], {}),
        ("Expand", [[1.0], [2**20, 2**20]], {}),
        ("Tile", [[1.0], [2**40]], {}),
        ("Range", [0, 2**40, 1], {}),
        ("Range", [0.0, 1.0, 0.0], {}),
        ("Range", [0.0, 1.0, 1e-30], {}),
        ("Pad", [np.ones((2, 2)), [2**20] * 4], {}),
        ("OneHot", [[1], 2**40, [0, 1]], {}),
        ("Gather", [np.ones((1, 2**14)), np.zeros(2**14, np.int64)], {}),
        ("MatMul", [np.ones((2**14, 1)), np.ones((1, 2**14))], {}),
        ("Einsum", [np.ones(512)] * 3, {"equation": "a,b,c->abc"}),
        ("Add", [np.ones((2**14, 1)), np.ones((1, 2**14))], {}),
        ("Add", [FLOATS, np.ones(5)], {}),
    ],
)
def test_unbounded_work_is_not_begun(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    node, operands = _node(op_type, inputs, **attributes)
    with pytest.raises(NotComputedError):
        evaluate(node, operands, {"": 20})


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("Transpose", [FLOATS], {}),
        ("Expand", [np.ones((4, 1)), [1, 3]], {}),
        ("Tile", [FLOATS, [2, 5]], {}),
        ("Range", [0, 10, 2], {}),
        ("Range", [10, 0, -2], {}),
        ("Pad", [FLOATS, [1, 0, 2, 0]], {}),
        ("Gather", [FLOATS, [0, 1, 1, 1, 1, 1]], {}),
        ("Gather", [FLOATS, 0], {"axis": -1}),
        ("GatherND", [FLOATS, [[0], [1], [1], [1], [1]]], {}),
        ("ConstantOfShape", [[2, 3]], {}),
        ("MatMul", [FLOATS, FLOATS.T], {}),
        ("MatMul", [np.ones((5, 1, 4, 3)), np.ones((2, 3, 4))], {}),
        ("Gemm", [FLOATS, FLOATS], {"transA": 1}),
        ("Einsum", [FLOATS, FLOATS], {"equation": "ij,ik->jk"}),
        ("OneHot", [[1, 0], 7, [0, 1]], {}),
        ("Concat", [FLOATS, FLOATS], {"axis": 0}),
        ("ReduceSum", [FLOATS, [0]], {}),
        ("Mul", [FLOATS, np.float32([2.0, 2.0, 2.0])], {}),
    ],
)
def test_the_estimate_is_at_least_what_is_made(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    node, operands = _node(op_type, inputs, **attributes)
    (made,) = evaluate(node, operands, {"": 20})
    assert made.size + sum(value.size for value in operands) <= work(node, operands) < 2000


def _side_output(text: str, kind: int, **constants: Any) -> ModelProto:
    """Return a chain of convolutions beside a constant expression that is a graph output."""
    proto = chain(f"m = Relu (h)\n {text}", opset=20, **constants)
    proto.graph.output.append(helper.make_tensor_value_info("side", kind, [1]))
    return proto


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_types_are_rounded_once(kind: int) -> None:
    """Runtimes sum up and divide in float32; in steps of bfloat16 a softmax is off by one in its last digit."""
    half = helper.tensor_dtype_to_np_dtype(kind)
    scores = np.random.default_rng(3).standard_normal((8, 18)).astype(half)
    node, inputs = _node("Softmax", [scores], axis=-1)
    wide, wide_inputs = _node("Softmax", [scores.astype(np.float32)], axis=-1)
    (rounded,) = evaluate(node, inputs, {"": 17})
    (exact,) = evaluate(wide, wide_inputs, {"": 17})
    assert rounded.dtype == half
    np.testing.assert_array_equal(rounded, exact.astype(half))


def test_a_node_that_names_a_type_makes_that() -> None:
    node, inputs = _node("Cast", [np.ones(3, np.float16)], to=TensorProto.FLOAT)
    assert evaluate(node, inputs, {"": 17})[0].dtype == np.float32


def test_a_regular_expression_is_not_tried() -> None:
    texts = np.array(["a" * 40], object)
    proto = _side_output('b = RegexFullMatch <pattern = "(a+)+b"> (t)\n side = Identity (b)', TensorProto.BOOL, t=texts)
    assert Analysis(load(proto)).groups


def test_a_text_is_not_doubled() -> None:
    lines = "\n".join(f"t{number + 1} = StringConcat (t{number}, t{number})" for number in range(40))
    proto = _side_output(f"{lines}\n side = Identity (t40)", TensorProto.STRING, t0=np.array(["abcd"], object))
    analysis = Analysis(load(proto))
    assert "t9" not in analysis.shapes.values


def test_values_that_are_held_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proportion, "_STANDING_ELEMENTS", np.inf)
    monkeypatch.setattr(proportion, "_STANDING_STEPS", np.inf)
    # A file of 256 KiB of floats would become gigabytes of values that nobody asks for.
    lines = "\n".join(f"v{number} = Add (w, w)" for number in range(2000))
    proto = model(f"(float[2] x) => (float[] y) {{ {lines}\n y = Relu (x) }}", {"w": (1 << 16,)})
    analysis = Analysis(load(proto))
    assert sum(value.size for value in analysis.shapes.values.values()) < 1 << 26
    assert len(analysis.shapes.values) > 100


def test_a_weight_that_is_convolved_is_computed_outside() -> None:
    proto = chain("m = Relu (h)", {"kernel": (8, 3, 1, 1), "eye": (3, 3, 1, 1)})
    proto.graph.node[0].input[1] = "made"
    proto.graph.node.insert(0, helper.make_node("Conv", ["kernel", "eye"], ["made"]))
    analysis = Analysis(load(proto))
    kernel, eye = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in ("kernel", "eye"))
    assert np.allclose(analysis.constants.array("made"), np.einsum("oihw,kihw->okhw", kernel, eye), atol=1e-5)
    assert len(analysis.groups) == 1


def test_a_weight_that_nobody_can_compute_is_kept() -> None:
    proto = chain("m = Relu (h)", {"kernel": (8, 3, 1, 1)})
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    proto.graph.node[0].input[1] = "made"
    proto.graph.node.insert(0, helper.make_node("Twist", ["kernel"], ["made"], domain="com.example"))
    proto.graph.value_info.append(helper.make_tensor_value_info("made", 1, [8, 3, 1, 1]))
    proto.graph.value_info.append(helper.make_tensor_value_info("h", 1, [2, 8, 6, 6]))
    proto.graph.value_info.append(helper.make_tensor_value_info("m", 1, [2, 8, 6, 6]))
    analysis = Analysis(load(proto))
    assert not analysis.groups
    reasons = [reason for _, reason in analysis.scope.space.freezes if reason.kind == "uncomputable constant"]
    assert reasons[0].text == "the constant 'made', made by Twist, cannot be computed"


def test_the_child_ends_by_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model(
        """(float[2] x) => (float[] y) {
            p = MaxPool <kernel_shape = [2000, 2000], pads = [1999, 1999, 1999, 1999]> (w)
            v = Add (p, p)
            y = Relu (x)
            z = Neg (v)
        }""",
        {"w": (1, 8, 2000, 2000)},
    )
    monkeypatch.setattr(constant_evaluation, "_SECONDS", 1)
    monkeypatch.setattr(proportion, "_STANDING_STEPS", np.inf)
    analysis = Analysis(load(proto))
    children = mock.Mock(wraps=constant_evaluation.run_child)
    monkeypatch.setattr(constant_evaluation, "run_child", children)
    assert not analysis.constants.computable("v")
    assert not analysis.constants.computable("v")
    children.assert_called_once()
    assert infer(analysis.graph, analysis.model.tensors.array, {"x": (2,)}).dims["p"] == (1, 8, 3999, 3999)


def _resized(count: int) -> ModelProto:
    """Return a network with so many constants that this process does not compute."""
    lines = "\n".join(f"r{at} = Resize (w, , by)\n z{at} = Neg (r{at})" for at in range(count))
    weights = {"w": (1, 4, 1, 1)}
    return model(f"(float[2] x) => (float[] y) {{ {lines}\n y = Relu (x) }}", weights, by=np.ones(4, np.float32))


def test_child_processes_have_so_much_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    took, allowed = iter(range(1000)), list[int]()

    def counted(_: str, __: object, allowance: Allowance) -> None:
        allowed.append(allowance.seconds)
        raise ChildError("made up")

    monkeypatch.setattr(constant_evaluation, "_children", lambda: next(took) * 0.75)
    monkeypatch.setattr(constant_evaluation, "run_child", counted)
    constants = Analysis(load(_resized(20))).constants
    assert not any(constants.computable(f"r{at}") for at in range(20))
    assert allowed == [2, 2, 2, 1]
