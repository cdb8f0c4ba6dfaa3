# SPDX-License-Identifier: Apache-2.0
"""States of `Loop` and `Scan`: what a loop hands on from turn to turn keeps the same channels at every turn."""

from __future__ import annotations

import numpy as np
import pytest
from fast_oracle import run
from onnx import ModelProto
from oracle_check import analyze, check
from rule_cases import Case, Stays, rule_tests
from tiny_models import model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load
from graphprune.rewrites.vanish import find_effects
from graphprune.surgery.prune import prune

FIVE = {"five": np.int64(5)}
BETWEEN = {"up": (4, 8), "down": (8, 4)}
HIDDEN = "up.1 out, down.0 in"

SELECTIVE = """(float[2,5,4] x) => (float[2,5,4] y) {
    p = MatMul (x, in_proj)
    u0, z = Split <axis = -1> (p, halved)
    ut = Transpose <perm = [0, 2, 1]> (u0)
    uc = Conv <group = 6, pads = [2, 0]> (ut, conv, conv_bias)
    ub = Transpose <perm = [0, 2, 1]> (uc)
    us = Sigmoid (ub)
    u = Mul (ub, us)
    q = MatMul (u, x_proj)
    low, b, c = Split <axis = -1> (q, thirds)
    dt = MatMul (low, dt_proj)
    raised = Add (dt, dt_bias)
    delta = Softplus (raised)
    a_exp = Exp (a_log)
    a = Neg (a_exp)
    delta1 = Unsqueeze (delta, last_axis)
    da0 = Mul (delta1, a)
    da = Exp (da0)
    du = Mul (delta, u)
    du1 = Unsqueeze (du, last_axis)
    b1 = Unsqueeze (b, second_axis)
    dbu = Mul (du1, b1)
    SCAN
    skip = Mul (u, d)
    full = Add (states, skip)
    gate = Sigmoid (z)
    zs = Mul (z, gate)
    gated = Mul (full, zs)
    y = MatMul (gated, out_proj)
}"""
"""A selective state space block (Mamba): 6 channels with states of 3, steps of rank 2, convolutions of 3."""

STEP = """decayed = Mul (h, da_t)
    next = Add (decayed, dbu_t)
    c1 = Unsqueeze (c_t, last_axis)
    read = MatMul (next, c1)
    y_t = Squeeze (read, last_axis)"""

AS_SCAN = f"""last, states = Scan <num_scan_inputs = 3, scan_input_axes = [1, 1, 1], scan_output_axes = [1],
    body = step (float[2,6,3] h, float[2,6,3] da_t, float[2,6,3] dbu_t, float[2,3] c_t)
        => (float[2,6,3] next, float[2,6] y_t)
    {{ {STEP} }}> (zeros, da, dbu, c)"""

AS_LOOP = f"""last, stacked = Loop (five, , zeros) <
    body = step (int64 i, bool go, float[2,6,3] h) => (bool on, float[2,6,3] next, float[2,6] y_t)
    {{
        on = Identity (go)
        da_t = Gather <axis = 1> (da, i)
        dbu_t = Gather <axis = 1> (dbu, i)
        c_t = Gather <axis = 1> (c, i)
        {STEP}
    }}>
    states = Transpose <perm = [1, 0, 2]> (stacked)"""


def _selective(scan: str) -> ModelProto:
    weights = {"in_proj": (4, 12), "conv": (6, 1, 3), "conv_bias": (6,), "x_proj": (6, 8), "dt_proj": (2, 6)}
    weights |= {"dt_bias": (6,), "a_log": (6, 3), "d": (6,), "out_proj": (6, 4)}
    constants = {"zeros": np.zeros((2, 6, 3), np.float32), "halved": [6, 6], "thirds": [2, 3, 3]}
    text = SELECTIVE.replace("SCAN", scan)
    return model(text, weights, last_axis=[-1], second_axis=[2], **constants, **FIVE)


CHANNELS = (
    "in_proj.1 out, conv.0 per_channel, conv_bias.0 per_channel, x_proj.0 in, dt_proj.1 out, dt_bias.0 per_channel, "
    "a.0 per_channel, d.0 per_channel, out_proj.0 in, zeros.1 per_channel"
)
STATE_SIZE = "x_proj.1 out, a.1 per_channel, zeros.2 per_channel"
MAMBA = {"p": (6, CHANNELS), "q+": (3, STATE_SIZE), "q": (2, "x_proj.1 out, dt_proj.0 in")}


def _through(loop: str, weights: dict[str, tuple[int, ...]] | None = None, **constants: object) -> ModelProto:
    """Return a model whose 8 hidden channels of `h` go through a loop that makes `m` of them."""
    text = f"(float[2,4] x) => (float[2,4] y) {{ h = MatMul (x, up) {loop} y = MatMul (m, down) }}"
    return model(text, BETWEEN | (weights or {}), **FIVE, **constants)


def _loop(body: str, given: str = "five, , h", on: str = "on = Identity (go)") -> str:
    return f"""m = Loop ({given}) <body = step (int64 i, bool go, float[2,8] s) => (bool on, float[2,8] t) {{
        {body} {on}
    }}>"""


SUMS = """last, m = Scan <num_scan_inputs = 1, body = step (float[8] s, float[8] e) => (float[8] t, float[8] o)
    { t = Add (s, e) o = Tanh (t) }> (zeros, h)"""

CELL = """both = Concat <axis = 1> (e, s)
    gates = MatMul (both, cell)
    biased = Add (gates, bias)
    i, f, g, o = Split <axis = 1> (biased, gate_sizes)
    is = Sigmoid (i) fs = Sigmoid (f) gt = Tanh (g) os = Sigmoid (o)
    kept = Mul (fs, k) made = Mul (is, gt) k2 = Add (kept, made) squashed = Tanh (k2) t = Mul (os, squashed)"""

LSTM_CELL = f"""(float[5,2,3] xs) => (float[2,4] y) {{
    m, last, all = Scan <num_scan_inputs = 1,
        body = step (float[2,8] s, float[2,8] k, float[2,3] e) => (float[2,8] t, float[2,8] k2, float[2,8] t2)
        {{ {CELL} t2 = Identity (t) }}> (zeros, zeros, xs)
    total = ReduceSum <keepdims = 0> (all, first_axis)
    sum = Add (m, total)
    y = MatMul (sum, down)
}}"""

CASES = [
    Case("selective-scan", _selective(AS_SCAN), MAMBA),
    Case("selective-loop", _selective(AS_LOOP), MAMBA),
    Case("elementwise", _through(_loop("a = Sigmoid (s) t = Mul (a, s)")), {"h": (8, HIDDEN)}),
    Case(
        "recurrent-weight",
        _through(_loop("a = MatMul (s, inner) t = Tanh (a)"), {"inner": (8, 8)}),
        {"h": (8, f"{HIDDEN}, inner.0 in, inner.1 out")},
    ),
    Case(
        "cell-of-an-lstm",
        model(
            LSTM_CELL,
            {"cell": (11, 32), "bias": (32,), "down": (8, 4)},
            zeros=np.zeros((2, 8), np.float32),
            gate_sizes=[8, 8, 8, 8],
            first_axis=[0],
        ),
        {"gates": (8, "cell.0 in, cell.1 out, bias.0 per_channel, down.0 in, zeros.1 per_channel")},
    ),
    Case(
        "cumulative-sum",
        model(
            """(float[5,2,4] xs) => (float[5,2,4] y) {
                h = MatMul (xs, up)
                last, sums = Scan <num_scan_inputs = 1,
                    body = step (float[2,8] s, float[2,8] e) => (float[2,8] t, float[2,8] o)
                    { t = Add (s, e) o = Identity (t) }> (begin, h)
                r = Tanh (sums)
                y = MatMul (r, down)
            }""",
            BETWEEN | {"begin": (2, 8)},
        ),
        {"h": (8, f"{HIDDEN}, begin.1 per_channel")},
    ),
    Case(
        "two-states-that-change-places",
        _through(
            """n = Relu (h)
            m, other = Loop (five, , h, n) <
                body = step (int64 i, bool go, float[2,8] s, float[2,8] k) => (bool on, float[2,8] k1, float[2,8] s1)
                { on = Identity (go) k1 = Neg (k) s1 = Tanh (s) }>"""
        ),
        {"h": (8, HIDDEN)},
    ),
    Case("no-turn", _through(_loop("t = Neg (s)", "none, , h"), none=np.int64(0)), {"h": (8, HIDDEN)}),
    Case(
        "condition-from-the-state",
        _through(_loop("t = Neg (s)", on="n = ReduceSum <keepdims = 0> (s) on = Less (n, limit)"), limit=np.float32(9)),
        {"h": (8, HIDDEN)},
    ),
    Case(
        "captured-and-handed-on",
        _through(
            """g = MatMul (x, other)
            m = Loop (five, , h) <body = step (int64 i, bool go, float[2,8] s) => (bool on, float[2,8] t)
                { on = Identity (go) a = Sigmoid (g) b = Mul (a, s) t = Add (b, shift) }>""",
            {"other": (4, 8), "shift": (8,)},
        ),
        {"h": (8, f"{HIDDEN}, other.1 out, shift.0 per_channel")},
    ),
    Case(
        "loop-in-a-loop",
        _through(
            _loop(
                """t = Loop (five, , s) <body = inner (int64 j, bool go2, float[2,8] s2) => (bool on2, float[2,8] t2)
                    { on2 = Identity (go2) a = Sigmoid (s2) t2 = Add (a, s) }>"""
            )
        ),
        {"h": (8, HIDDEN)},
    ),
    Case(
        "halves-that-change-places",
        _through(_loop("a, b = Split <axis = 1> (s, fours) c = Tanh (b) t = Concat <axis = 1> (c, a)"), fours=[4, 4]),
        {"h": (4, HIDDEN)},
    ),
    Case(
        "axes-that-change-places",
        model(
            """(float[4,4] x) => (float[3,3] y) {
                a = MatMul (x, up)
                h = MatMul (down, a)
                m = Loop (five, , h) <body = step (int64 i, bool go, float[8,8] s) => (bool on, float[8,8] t) {
                    on = Identity (go) a1 = Transpose <perm = [1, 0]> (s) t = Sin (a1)
                }>
                n = MatMul (left, m)
                y = MatMul (n, right)
            }""",
            {"up": (4, 8), "down": (8, 4), "left": (3, 8), "right": (8, 3)},
            **FIVE,
        ),
        {"a": (8, "up.1 out, down.0 out, left.1 in, right.0 in")},
    ),
]

STAYS = [
    Stays("softmax-over-a-state", _through(_loop("t = Softmax <axis = 1> (s)")), ("Softmax", "t")),
    Stays(
        "state-that-becomes-a-constant",
        _through(_loop("t = Identity (zeros)"), zeros=np.zeros((2, 8), np.float32)),
        ("control flow", "m"),
    ),
    Stays(
        "state-that-grows",
        model(
            """(float[2,4] x) => (float[n,4] y) {
                h = MatMul (x, up)
                m = Loop (five, , h) <body = step (int64 i, bool go, float[n,8] s) => (bool on, float[k,8] t)
                    { on = Identity (go) t = Concat <axis = 0> (s, h) }>
                y = MatMul (m, down)
            }""",
            BETWEEN,
            **FIVE,
        ),
        ("control flow", "m"),
    ),
    Stays(
        "scan-along-the-channels",
        model(
            """(float[2,4] x) => (float[2,4] y) {
                h = MatMul (x, up)
                last, m = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                    body = step (float[2] s, float[2] e) => (float[2] t, float[2] o)
                    { t = Add (s, e) o = Tanh (t) }> (zeros, h)
                y = MatMul (m, down)
            }""",
            BETWEEN,
            zeros=np.zeros(2, np.float32),
        ),
        ("control flow", "last"),
    ),
    Stays(
        "collected-over-an-unknown-number-of-turns",
        model(
            """(float[2,4] x) => (float[n,2,4] y) {
                h = MatMul (x, up)
                last, m = Loop (five, , x) <body = step (int64 i, bool go, float[2,4] s)
                    => (bool on, float[2,4] t, float[2,8] o)
                { n = ReduceSum <keepdims = 0> (s) on = Less (n, limit) t = Neg (s) o = Tanh (h) }>
                y = MatMul (m, down)
            }""",
            BETWEEN,
            limit=np.float32(9),
            **FIVE,
        ),
        ("control flow", "last"),
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_written_is_verified_and_runs(case: Case, tmp_path) -> None:
    analysis = Analysis(load(case.model))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.7))
    api.save(api.apply(analysis, plan), tmp_path / "pruned.onnx")
    assert api.verify(analysis, api.load(tmp_path / "pruned.onnx"), plan).status == "verified"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_removed_is_nothing_changed(case: Case) -> None:
    analysis = analyze(case.model)
    assert prune(analysis, np.ones(int(analysis.grouping.sizes.sum()), dtype=np.bool_)) == case.model


ZEROS_OF_ANY_BATCH = """(float[5,N,3] xs) => (float[N,4] y) {
    batch = Shape <start = 1, end = 2> (xs)
    dims = Concat <axis = 0> (batch, eight)
    begin = ConstantOfShape <value = float[1] {FILL}> (dims)
    m = Scan <num_scan_inputs = 1, body = step (float[N,8] s, float[N,3] e) => (float[N,8] t)
        { both = Concat <axis = 1> (e, s) a = MatMul (both, cell) t = Tanh (a) }> (begin, xs)
    y = MatMul (m, down)
}"""


@pytest.mark.parametrize("fill", ["0.0", "0.5"])
def test_states_that_begin_with_a_number_for_each_sample(fill: str) -> None:
    proto = model(ZEROS_OF_ANY_BATCH.replace("FILL", fill), {"cell": (11, 8), "down": (8, 4)}, eight=[8])
    analysis = analyze(proto, xs=(5, 2, 3))
    assert [group.size for group in analysis.groups] == [8]
    pruned = check(analysis).pruned
    assert run(pruned, {"xs": np.ones((5, 3, 3), dtype=np.float32)})["y"].shape == (3, 4)


@pytest.mark.parametrize(("loop", "operator"), [(_loop("t = Tanh (s)"), "Loop"), (SUMS, "Scan")])
def test_what_goes_through_a_loop_is_never_emptied(loop: str, operator: str) -> None:
    text = f"(float[2,4] x) => (float[2,4] y) {{ h = MatMul (x, up) {loop} k = MatMul (m, down) y = Add (x, k) }}"
    analysis = analyze(model(text, BETWEEN | {"zeros": (8,)}, **FIVE))
    assert [group.size for group in analysis.groups] == [8]
    assert find_effects(analysis, np.zeros(8, dtype=np.bool_)).why == f"{operator} hands on what would be gone"
