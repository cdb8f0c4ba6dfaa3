# SPDX-License-Identifier: Apache-2.0
"""The label pass: what no rule knows stays whole, with its reason, and the rest is free."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, helper, parser
from oracle_check import analyze, check, halves
from rule_cases import groups, reasons
from tiny_models import chain, model

from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.verification.verify import verify_pruned

WEIGHTS = {"zero": (5, 3, 1, 1), "first": (8, 5, 1, 1), "middle": (6, 8, 1, 1), "last": (2, 6, 1, 1)}
BEFORE = (5, frozenset({"zero.0 out", "first.1 in"}))
BEHIND = (6, frozenset({"middle.0 out", "last.1 in"}))


def _around(text: str, outputs: str = "float[2,2,6,6] y", shape_of_m: bool = False) -> ModelProto:
    """Put nodes that make `m` of `h` between two pairs of convolutions."""
    proto = model(
        f"""(float[2,3,6,6] x) => ({outputs}) {{
            g = Conv (x, zero)
            h = Conv (g, first)
            {text}
            n = Conv (m, middle)
            y = Conv (n, last)
        }}""",
        WEIGHTS,
        domains=', "com.example": 1',
    )
    if shape_of_m:
        proto.graph.value_info.append(helper.make_tensor_value_info("m", 1, [2, 8, 6, 6]))
    return proto


def test_an_unknown_operator_freezes_what_it_reads() -> None:
    analysis = analyze(_around("m = com.example.Whiten (h)", shape_of_m=True))
    assert groups(analysis)["g"] == BEFORE
    assert ("unknown operator", "m") in reasons(analysis, "h", 1)
    assert "Whiten" in {entry.text for entry in analysis.frozen if entry.kind == "unknown operator"}.pop()


def test_what_is_made_of_a_whole_axis_freezes_it() -> None:
    text = "(float[2,3,6,6] x) => (float[] d) { g = Conv (x, zero) h = Conv (g, first) d = Det (h) }"
    analysis = analyze(model(text, {"zero": (5, 3, 1, 1), "first": (8, 5, 1, 1)}))
    assert set(groups(analysis)) == {"g"}
    assert check(analysis).effect > 1e-3


LOOP = """m = Loop (three, , h) <body = step (int64 i, bool go, float[2,8,6,6] s) => (bool on, float[2,8,6,6] t) {
    on = Identity (go)
    t = Tanh (%s)
}>"""


@pytest.mark.parametrize("inner", [pytest.param("s", id="state-of-a-loop"), pytest.param("h", id="captured-by-a-loop")])
def test_loops_hand_on_what_goes_in(inner: str) -> None:
    proto = _around(LOOP % inner)
    proto.graph.initializer.append(helper.make_tensor("three", 7, [], [3]))
    analysis = analyze(proto)
    found = groups(analysis)
    assert found["g"] == BEFORE
    assert found["h"] == (8, frozenset({"first.0 out", "middle.1 in"}))
    assert found["n"] == BEHIND
    keep = halves(analysis)
    assert verify_pruned(analysis, analysis.model.replaced(prune(analysis, keep)), keep).status == "verified"


def test_a_weight_that_a_loop_computes_with_is_computed_beforehand_where_it_changes() -> None:
    proto = model(
        """(float[2,3] x) => (float[2,2] y) {
            h = MatMul (x, first)
            r = Relu (h)
            m = MatMul (r, last)
            y = Loop (three, , m) <body = step (int64 i, bool go, float[2,2] s) => (bool on, float[2,2] t) {
                on = Identity (go)
                w = ReduceMean <keepdims = 0> (first)
                t = Mul (s, w)
            }>
        }""",
        {"first": (3, 8), "last": (8, 2)},
        three=np.int64(3),
    )
    assert groups(analyze(proto)) == {"h": (8, frozenset({"first.1 out", "last.0 in"}))}
    assert check(proto).effect > 1e-3


def test_a_weight_that_a_body_reads_which_is_not_followed_stays_whole() -> None:
    """Bodies of `SequenceMap` are not laid out."""
    text = """(float[2,3] x) => (float[2,2] y, float[2,8] z) {
        h = MatMul (x, first)
        r = Relu (h)
        y = MatMul (r, last)
        s = SequenceConstruct (x)
        q = SequenceMap (s) <body = step (float[2,3] e) => (float[2,8] t) { t = MatMul (e, first) }>
        z = SequenceAt (q, zero)
    }"""
    proto = model(text, {"first": (3, 8), "last": (8, 2)}, zero=np.int64(0))
    assert analyze(proto).groups == ()


def test_graph_outputs_in_the_middle_freeze() -> None:
    proto = _around("m = Relu (h)", outputs="float[2,2,6,6] y, float[2,8,6,6] m")
    analysis = analyze(proto)
    assert groups(analysis) == {"g": BEFORE, "n": BEHIND}
    assert ("graph output", "") in reasons(analysis, "h", 1)
    (entry,) = (entry for entry in analysis.frozen if entry.kind == "graph output")
    assert entry.layers >= 2


def test_a_weight_that_is_a_graph_output_stays() -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        tiny (float[2,3] x) => (float[2,2] y, float[3,8] first) {
            h = MatMul (x, first) y = MatMul (h, last)
        }"""
    )
    proto.graph.initializer.extend(
        model("(float[1] x) => (float[] y) { y = Relu (x) }", {"first": (3, 8), "last": (8, 2)}).graph.initializer
    )
    assert analyze(proto).groups == ()


def test_what_is_only_known_when_it_runs_freezes_and_the_rest_is_free() -> None:
    """The number of non-zero elements depends on the data, and so does what is behind it."""
    proto = model(
        """(float[2,3,6,6] x) => (float[2,2,6,6] y, int64[a,b] z) {
            g = Conv (x, zero)
            h = Conv (g, first)
            z = NonZero (h)
            m = Relu (h)
            n = Conv (m, middle)
            y = Conv (n, last)
        }""",
        WEIGHTS,
    )
    analysis = analyze(proto)
    assert groups(analysis) == {"g": BEFORE, "n": BEHIND}
    assert check(analysis).effect > 1e-3


def test_only_what_a_shape_is_read_of_is_kept_for_its_shape() -> None:
    """What nobody reads at all can go as it can where nothing asks for a shape."""
    proto = model(
        """(float[2,3,6,6] x) => (float[] y) {
            measured = Conv (x, first)
            unread = Conv (x, second)
            shape = Shape (measured)
            batch = Gather (shape, zero)
            target = Concat <axis = 0> (batch, rest)
            h = Conv (x, third)
            flat = Reshape (h, target)
            y = MatMul (flat, last)
        }""",
        {"first": (8, 3, 1, 1), "second": (7, 3, 1, 1), "third": (4, 3, 1, 1), "last": (144, 5)},
        zero=[0],
        rest=[144],
    )
    analysis = analyze(proto)
    assert {group.name for group in analysis.groups} == {"unread", "h"}
    assert "shape" in {kind for kind, _ in reasons(analysis, "measured", 1)}
    again = analyze(prune(analysis, halves(analysis)))
    assert [group.name for group in again.groups] == [group.name for group in analysis.groups]


def test_a_model_without_channels_has_no_groups() -> None:
    analysis = analyze(model("(float[2,3] x) => (float[] y) { y = Relu (x) }"))
    assert analysis.groups == ()
    assert analysis.prunable == 0.0
    assert analysis.cost.flops(analysis.cost.sizes) == 0


def test_constants_are_not_labelled_as_activations() -> None:
    analysis = analyze(_around("k = Neg (first)\n m = Relu (h)"))
    assert "k" not in analysis.scope.values
    assert set(groups(analysis)) == {"g", "h", "n"}


def test_what_the_standard_does_not_allow_is_frozen_with_its_reason() -> None:
    """It runs in onnxruntime all the same, which takes an axis beyond the rank for the last one."""
    proto = model(
        "(float[2,3,6,6] x) => (float[2,2,6,6] y) { h = Conv (x, first) m = Hardmax (h) y = Conv (m, last) }",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)},
    )
    proto.graph.node[1].attribute.add(name="axis", type=AttributeProto.INT, i=2**63 - 1)
    analysis = Analysis(load(proto))
    assert analysis.groups == ()
    assert "odd operands" in {entry.kind for entry in analysis.frozen}


def test_a_slope_that_spreads_what_it_scales_holds_its_channels() -> None:
    """One sample becomes two, which the standard does not allow, and onnxruntime does."""
    proto = chain("m = PRelu (h, slope)", {"slope": (2, 8, 1, 1)})
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    analysis = Analysis(load(proto))
    assert analysis.groups == ()
    assert "odd operands" in {entry.kind for entry in analysis.frozen}
