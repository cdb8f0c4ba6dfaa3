# SPDX-License-Identifier: Apache-2.0
"""Branches of `If`: what both make keeps the same channels, and what is not reached stays whole."""

from __future__ import annotations

import numpy as np
import pytest
from body_cases import HIDDEN, MLP, THREE, WEIGHTS, bodies, body_tests
from onnx import ModelProto
from oracle_check import analyze, check, halves
from rule_cases import Case, groups, reasons
from tiny_models import model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.verification.verify import verify_pruned

CASES = [
    Case(
        "loop-in-a-branch",
        model(
            """(float[2,4] x) => (float[2,4] z) {
                total = ReduceSum <keepdims = 0> (x)
                none = Sub (total, total)
                large = Equal (none, zero)
                z = If (large) <
                    then_branch = yes () => (float[2,4] y) {
                        y = Loop (three, , x) <body = step (int64 i, bool go, float[2,4] s)
                            => (bool on, float[2,4] t) { on = Identity (go) BODY }>
                    },
                    else_branch = no () => (float[2,4] n) { n = Neg (x) }
                >
            }""".replace("BODY", MLP.format("s", "t")),
            WEIGHTS,
            zero=np.float32(0),
            **THREE,
        ),
        HIDDEN,
    ),
]

test_layers_inside_are_free, test_numbers, test_files, test_nothing_removed = body_tests(CASES)


@pytest.mark.parametrize("turned", [False, True])
def test_a_branch_that_is_always_taken_decides_the_shape(turned: bool) -> None:
    text = """(float[2,1,4] x) => (float[2,4] y) {
        sizes = Shape (x)
        middle = Gather <axis = 0> (sizes, one)
        single = Equal (middle, one)
        m = If (single) <
            then_branch = yes () => (float[n,k] a) { a = Squeeze (x, one) },
            else_branch = no () => (float[n,m,k] b) { b = Identity (x) }
        >
        h = MatMul (m, up)
        r = Relu (h)
        y = MatMul (r, down)
    }"""
    proto = model(text, {"up": (4, 8), "down": (8, 4)}, one=[1])
    if turned:
        _turn_branches(proto)
    assert groups(analyze(proto)) == {"h": (8, frozenset({"up.1 out", "down.0 in"}))}
    assert check(proto).effect > 1e-3


def _turn_branches(proto: ModelProto) -> None:
    """Let the else branch come first among the attributes, as `onnx.helper` sorts them."""
    for node in (node for node in proto.graph.node if node.op_type == "If"):
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        del node.attribute[:]
        node.attribute.extend(attributes)


@pytest.mark.parametrize("turned", [False, True])
def test_branches_of_which_one_squeezes_keep_the_same_channels(turned: bool) -> None:
    """As exporters write `squeeze` of an unknown length: one branch is impossible, but its channels go, too."""
    text = """(float[2,4,1] x) => (float[2,4] y) {
        h = Conv (x, up)
        sizes = Shape (h)
        last = Gather <axis = 0> (sizes, two)
        single = Equal (last, one)
        m = If (single) <
            then_branch = yes () => (float[n,k] a) { a = Squeeze (h, two) },
            else_branch = no () => (float[n,m,k] b) { b = Identity (h) }
        >
        r = Relu (m)
        large = ReduceSum <keepdims = 0> (r)
        is_large = Less (large, limit)
        t = If (is_large) <
            then_branch = yes2 () => (float[n,k] c) { c1 = Tanh (r) c = Sin (c1) },
            else_branch = no2 () => (float[n,k] d) { d = Neg (r) }
        >
        y = MatMul (t, down)
    }"""
    proto = model(text, {"up": (8, 4, 1), "down": (8, 4)}, one=[1], two=[2], limit=np.float32(9))
    if turned:
        _turn_branches(proto)
    assert groups(analyze(proto)) == {"h": (8, frozenset({"up.0 out", "down.0 in"}))}
    assert check(proto).effect > 1e-3
    analysis = Analysis(load(proto))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
    assert api.verify(analysis, api.apply(analysis, plan), plan).status == "verified"


BRANCHES = """(float[2,4] x) => (float[2,4] y) {
    total = ReduceSum <keepdims = 0> (x)
    large = Less (total, limit)
    first = MatMul (x, common)
    m = If (large) <
        then_branch = yes () => (float[n,k] a) { a1 = MatMul (first, one) a = Relu (a1) },
        else_branch = no () => (float[n,k] b) { b1 = MatMul (first, other) b = Add (b1, shift) }
    >
    y = MatMul (m, down)
}"""


@pytest.mark.parametrize("limit", [-1e3, 1e3])
def test_what_both_branches_make_keeps_the_same_channels_in_both(limit: float) -> None:
    weights = {"common": (4, 6), "one": (6, 8), "other": (6, 8), "shift": (8,), "down": (8, 4)}
    proto = model(BRANCHES, weights, limit=np.float32(limit))
    assert set(groups(analyze(proto)).values()) == {
        (8, frozenset({"one.1 out", "other.1 out", "shift.0 per_channel", "down.0 in"})),
        (6, frozenset({"common.1 out", "one.0 in", "other.0 in"})),
    }
    assert check(proto).effect > 1e-3


def test_declared_results_of_branches_follow() -> None:
    weights = {"common": (4, 6), "one": (6, 8), "other": (6, 8), "shift": (8,), "down": (8, 4)}
    proto = model(BRANCHES.replace("float[n,k]", "float[2,8]"), weights, limit=np.float32(0))
    pruned = check(proto).pruned
    sizes = [dim.dim_value for body in bodies(pruned) for dim in body.output[0].type.tensor_type.shape.dim]
    assert sizes == [2, 4, 2, 4]


@pytest.mark.parametrize("field", ["type", "shape"])
def test_results_of_branches_need_not_be_declared(field: str) -> None:
    """Functions that are inlined leave their results without a type."""
    weights = {"common": (4, 6), "one": (6, 8), "other": (6, 8), "shift": (8,), "down": (8, 4)}
    proto = model(BRANCHES, weights, limit=np.float32(0))
    for body in bodies(proto):
        for value in body.output:
            if field == "type":
                value.ClearField("type")
            else:
                value.type.tensor_type.ClearField("shape")
    analysis = Analysis(load(proto))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
    assert api.verify(analysis, api.apply(analysis, plan), plan).status == "verified"


def test_weights_in_a_branch_that_is_not_reached_stay_whole() -> None:
    """Nothing can be compared there, and nothing is computed; what only passes through may lose channels."""
    text = """(float[2,4,1] x) => (float[2,4] y) {
        h = Conv (x, up)
        sizes = Shape (h)
        last = Gather <axis = 0> (sizes, two)
        single = Equal (last, one)
        m = If (single) <
            then_branch = yes () => (float[n,k] a) { a = Squeeze (h, two) },
            else_branch = no () => (float[n,m,k] b) { d = Conv (h, there) e = Relu (d) b = Conv (e, back) }
        >
        r = Relu (m)
        y = MatMul (r, down)
    }"""
    weights = {"up": (8, 4, 1), "down": (8, 4), "there": (6, 8, 1), "back": (8, 6, 1)}
    analysis = analyze(model(text, weights, one=[1], two=[2]))
    assert groups(analysis) == {}
    assert ("control flow", "d") in reasons(analysis, "d", 1)
    assert ("control flow", "d") in reasons(analysis, "h", 1)
    assert [layer.node for layer in analysis.layers] == ["h", "y"]
    assert analysis.uncounted == ()


def test_a_branch_that_cannot_run_holds_what_it_reads_and_no_more() -> None:
    """Five channels are no four parts: onnxruntime runs such a file until it takes that branch."""
    text = """(float[1,3,8,8] x, bool cond) => (float[1,4,8,8] y) {
        a = Conv (x, first)
        y = If (cond) <
            then_branch = dead () => (float[1,4,8,8] y1) {
                p, q, u, v = Split <axis = 1, num_outputs = 4> (a)
                y1 = Conv (p, never)
            },
            else_branch = live () => (float[1,4,8,8] y2) {
                h = Conv (a, up)
                r = Relu (h)
                y2 = Conv (r, down)
            }
        >
    }"""
    weights = {"first": (5, 3, 1, 1), "never": (4, 2, 1, 1), "up": (8, 5, 1, 1), "down": (4, 8, 1, 1)}
    analysis = analyze(model(text, weights, opset=18))
    assert groups(analysis) == {"h": (8, frozenset({"up.0 out", "down.1 in"}))}
    assert ("unknown shape", "p") in reasons(analysis, "a", 1)
    keep = halves(analysis)
    verified = verify_pruned(analysis, load(prune(analysis, keep)), keep)
    assert verified.status == "verified"
