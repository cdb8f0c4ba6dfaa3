# SPDX-License-Identifier: Apache-2.0
"""Normalisation: what can be computed beforehand is, and the model computes exactly what it did."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from fidelity_models import GRAPHS, analysed
from onnx import ModelProto, numpy_helper, parser

from graphprune import api
from graphprune.surgery.folding import fold


def run(proto: ModelProto, **feeds: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@dataclass(frozen=True)
class Case:
    """A graph, which operators are left of it, and sizes of the dynamic dimension to try."""

    label: str
    text: str
    left: list[str]
    sizes: tuple[int, ...] = (1, 2, 5)
    opset: int = 17
    ir: int = 8
    weights: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)


def integers(*shape: int) -> npt.NDArray[np.generic]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 3


CASES = (
    Case(
        "a computed weight",
        "(float[n, 4] x) => (float[n, 4] y) { two = Add (w, w) y = MatMul (x, two) }",
        ["MatMul"],
        weights={"w": integers(4, 4)},
    ),
    Case(
        "the layout of a weight stays",
        "(float[n, 4] x) => (float[n, 4] y) { t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
        ["Transpose", "MatMul"],
        weights={"w": integers(4, 4)},
    ),
    Case(
        "a constant node, a dead node and a dead tensor",
        """(float[n, 4] x) => (float[n, 4] y) {
            c = Constant <value = float[4] {1, 2, 3, 4}> ()
            dead = Relu (unread)
            y = Add (x, c)
        }""",
        ["Add"],
        weights={"unread": integers(2)},
    ),
    Case(
        "a size that is always the same",
        """(float[n, 4, 6] x) => (float[n, m] y) {
            s = Shape (x)
            size = Gather (s, last)
            flat = Unsqueeze (size, zero)
            more = Mul (flat, four)
            shape = Concat <axis = 0> (minus, more)
            y = Reshape (x, shape)
        }""",
        ["Reshape"],
        weights={
            "last": np.int64(2),
            "zero": np.array([0]),
            "four": np.array([4]),
            "minus": np.array([-1]),
        },
    ),
    Case(
        "a size that depends on the input",
        """(float[n, 4, 6] x) => (float[n, m] y) {
            s = Shape (x)
            batch = Slice (s, zero, one, zero)
            shape = Concat <axis = 0> (batch, minus)
            y = Reshape (x, shape)
        }""",
        ["Shape", "Slice", "Concat", "Reshape"],
        weights={"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])},
    ),
    Case(
        "a size that two inputs happen to share",
        """(float[n, 4] x) => (float[n, 4] y) {
            s = Shape (x)
            batch = Slice (s, zero, one, zero)
            rest = Mod (batch, three)
            real = Cast <to = 1> (rest)
            y = Add (x, real)
        }""",
        ["Shape", "Slice", "Mod", "Cast", "Add"],
        sizes=(1, 2, 3, 4, 6, 7),
        weights={"zero": np.array([0]), "one": np.array([1]), "three": np.array([3])},
    ),
    Case(
        "initializers that are graph inputs",
        "(float[n, 4] x, float[4] w) => (float[n, 4] y) { two = Add (w, w) y = Add (x, two) }",
        ["Constant", "Add"],
        opset=8,
        ir=3,
        weights={"w": integers(4)},
    ),
    Case(
        "a constant output",
        "(float[n, 4] x) => (float[n, 4] y, float[4] z) { z = Add (w, w) two = Add (z, z) y = Add (x, two) }",
        ["Add", "Add"],
        weights={"w": integers(4)},
    ),
    Case(
        "a computed number has no axes",
        """(float[n, 4] x) => (float[n] y) {
            s = Shape (x)
            size = Gather (s, first)
            zero = Sub (one, one)
            r = Range (zero, size, one)
            y = Cast <to = 1> (r)
        }""",
        ["Shape", "Gather", "Range", "Cast"],
        weights={"first": np.int64(0), "one": np.int64(1)},
    ),
    Case(
        "a computed condition",
        """(float[n, 4] x) => (float[n, 4] y) {
            both = Add (one, one)
            same = Equal (both, one)
            y = If (same) <
                then_branch = g1 () => (float[n, 4] p) { p = Relu (x) },
                else_branch = g2 () => (float[n, 4] q) { q = Neg (x) }
            >
        }""",
        ["Add", "Equal", "If"],
        weights={"one": np.int64(1)},
    ),
    Case(
        "a body that reads a computed value",
        """(float[n, 4] x, bool b) => (float[n, 4] y) {
            two = Add (w, w)
            y = If (b) <
                then_branch = g1 () => (float[n, 4] p) { p = Add (x, two) },
                else_branch = g2 () => (float[n, 4] q) { q = Mul (x, two) }
            >
        }""",
        [],
        weights={"w": integers(4)},
    ),
)


def build(case: Case) -> ModelProto:
    proto = parser.parse_model(f'<ir_version: {case.ir}, opset_import: ["": {case.opset}]> net {case.text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in case.weights.items())
    return proto


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_folding_computes_the_same(case: Case) -> None:
    proto = build(case)
    result = api.normalize(api.load(proto)).proto
    onnx.checker.check_model(result, full_check=True)
    if case.left:  # what an `If` becomes is not the business of folding
        assert [node.op_type for node in result.graph.node] == case.left
    assert {tensor.name for tensor in result.graph.initializer}.isdisjoint({"dead", "unread"})
    assert list(result.graph.input) == list(proto.graph.input)
    assert list(result.graph.output) == list(proto.graph.output)
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    for size in case.sizes:
        feeds: dict[str, npt.NDArray[np.generic]] = {"x": integers(size, *shape)}
        if "bool b" in case.text:
            feeds["b"] = np.array(size % 2 == 0)
        for expected, found in zip(run(proto, **feeds), run(result, **feeds), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_tensor_that_a_plan_names_is_there(name: str) -> None:
    analysis, plan = analysed(name)
    result = fold(analysis)
    onnx.checker.check_model(result, full_check=True)
    stored = {tensor.name for tensor in result.graph.initializer}
    assert {member.initializer for group in plan.groups for member in group.members} <= stored
    assert not result.functions
    assert not any(node.op_type == "Constant" for node in result.graph.node)
    assert result.doc_string == "a model"
    feeds: dict[str, npt.NDArray[np.generic]] = {}
    for value in analysis.model.proto.graph.input:
        shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
        feeds[value.name] = np.array(False) if value.name == "which" else integers(*shape) / np.float32(64)
    for expected, found in zip(run(analysis.model.proto, **feeds), run(result, **feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_normalising_twice_changes_nothing() -> None:
    analysis, _ = analysed("hidden weights")
    once = fold(analysis)
    assert fold(api.analyze(api.load(once))) == once
