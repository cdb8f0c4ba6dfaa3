# SPDX-License-Identifier: Apache-2.0
"""Rules of matrix products."""

from __future__ import annotations

import pytest
from oracle_check import analyze, check
from rule_cases import Case, Stays, rule_tests
from tiny_models import model


def _dense(middle: str, shapes: dict[str, tuple[int, ...]], *, rows: int = 5) -> Case:
    name, _, text = middle.partition(": ")
    groups = {
        "h": (8, "first.1 out, b1.0 per_channel, " + text.split(" | ")[0]),
        "m": (6, text.split(" | ")[1] + ", last.0 in"),
    }
    body = f"""(float[{rows},3] x) => (float[] y) {{
        p = MatMul (x, first)
        a = Add (p, b1)
        h = Relu (a)
        {name}
        y = MatMul (m, last)
    }}"""
    shapes = {"first": (3, 8), "b1": (8,), "last": (6, 2), **shapes}
    return Case(name.split("(")[0].strip(), model(body, shapes), {"p": groups["h"], "m": groups["m"]})


ATTENTION_FREE = """(float[2,5,3] x) => (float[] y) {
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    t = Transpose <perm = [0, 2, 1]> (k)
    s = MatMul (q, t)
    p = Softmax <axis = -1> (s)
    v = MatMul (x, wv)
    o = MatMul (p, v)
    y = MatMul (o, wo)
}"""

CASES = [
    _dense("m = Gemm (h, w, b): w.0 in | w.1 out, b.0 per_channel", {"w": (8, 6), "b": (6,)}),
    _dense("m = Gemm <transB = 1> (h, w, b): w.1 in | w.0 out, b.0 per_channel", {"w": (6, 8), "b": (6,)}),
    _dense(
        "m = Gemm <alpha = 0.5, beta = 2.0> (h, w, b): w.0 in | w.1 out, b.1 per_channel", {"w": (8, 6), "b": (5, 6)}
    ),
    _dense("m = Gemm (h, w): w.0 in | w.1 out", {"w": (8, 6)}),
    _dense("m = Gemm (h, w, b) : w.0 in | w.1 out", {"w": (8, 6), "b": (5, 1)}),
    _dense("m = MatMul (h, w): w.0 in | w.1 out", {"w": (8, 6)}),
    Case(
        "gemm-trans-a",
        model(
            """(float[5,3] x) => (float[] y) {
                p = MatMul (x, first)
                h = Transpose (p)
                m = Gemm <transA = 1> (h, w, b)
                y = MatMul (m, last)
            }""",
            {"first": (3, 8), "w": (8, 6), "b": (6,), "last": (6, 2)},
        ),
        {"p": (8, "first.1 out, w.0 in"), "m": (6, "w.1 out, b.0 per_channel, last.0 in")},
    ),
    Case(
        "weight-on-the-left",
        model(
            """(float[2,3,5] x) => (float[] y) {
                h = MatMul (first, x)
                y = MatMul (last, h)
            }""",
            {"first": (8, 3), "last": (2, 8)},
        ),
        {"h": (8, "first.0 out, last.1 in")},
    ),
    Case(
        "gemm-weight-on-the-left",
        model(
            """(float[3,5] x) => (float[] y) {
                h = Gemm (first, x)
                y = Gemm (last, h)
            }""",
            {"first": (8, 3), "last": (2, 8)},
        ),
        {"h": (8, "first.0 out, last.1 in")},
    ),
    Case(
        "stacked-weights-are-per-channel-along-the-stack",
        model(
            """(float[2,3,5,1] x) => (float[] y) {
                h = Conv (x, first)
                m = MatMul (h, w)
                y = Conv (m, last)
            }""",
            {"first": (8, 3, 1, 1), "w": (8, 1, 4), "last": (2, 8, 1, 1)},
        ),
        {"h": (8, "first.0 out, w.0 per_channel, last.1 in")},
    ),
    Case(
        "vector-times-matrix",
        model(
            """(float[3] x) => (float[] y) {
                h = MatMul (x, first)
                y = MatMul (h, last)
            }""",
            {"first": (3, 8), "last": (8, 2)},
        ),
        {"h": (8, "first.1 out, last.0 in")},
    ),
    Case(
        "matrix-times-vector",
        model(
            """(float[4,3] x) => (float[] y) {
                h = MatMul (x, first)
                y = MatMul (h, last)
            }""",
            {"first": (3, 8), "last": (8,)},
        ),
        {"h": (8, "first.1 out, last.0 in")},
    ),
    Case(
        "product-of-activations",
        model(ATTENTION_FREE, {"wq": (3, 8), "wk": (3, 8), "wv": (3, 6), "wo": (6, 4)}),
        {"q": (8, "wq.1 out, wk.1 out"), "v": (6, "wv.1 out, wo.0 in")},
    ),
    Case(
        # A shared weight belongs to the tensor: its rows and its columns are one group.
        "tied-weight",
        model(
            """(float[4,3] x) => (float[] y) {
                h = MatMul (x, first)
                r = Relu (h)
                m = MatMul (r, square)
                s = Relu (m)
                n = MatMul (s, square)
                y = MatMul (n, last)
            }""",
            {"first": (3, 8), "square": (8, 8), "last": (8, 2)},
        ),
        {"h": (8, "first.1 out, square.0 in, square.1 out, last.0 in")},
    ),
]

STAYS = [
    Stays(
        "rows-of-the-input",
        model(
            """(float[5,3] x) => (float[] y) {
                h = Gemm (x, first)
                t = Transpose (h)
                y = MatMul (t, last)
            }""",
            {"first": (3, 8), "last": (5, 2)},
        ),
        ("graph output", ""),
    ),
    Stays(
        "inner-axis-is-fixed",
        model(
            """(float[2,8,4] x, float[2,5,3] z) => (float[] y) {
                h = MatMul (z, first)
                s = MatMul (h, x)
                m = MatMul (s, second)
                y = MatMul (m, last)
            }""",
            {"first": (3, 8), "second": (4, 6), "last": (6, 2)},
        ),
        ("fixed axis", "s"),
        ("h", 2),
        {"m": (6, "second.1 out, last.0 in")},
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_all_opsets(opset: int) -> None:
    proto = model(
        "(float[5,3] x) => (float[] y) { h = Gemm <transB = 1> (x, first, b)\n y = MatMul (h, last) }",
        {"first": (8, 3), "b": (8,), "last": (8, 2)},
        opset=opset,
    )
    assert [tuple(t.dims) for t in check(proto).pruned.graph.initializer] == [(4, 3), (4,), (4, 2)]


def test_flops_of_a_batched_product() -> None:
    analysis = analyze(model(ATTENTION_FREE, {"wq": (3, 8), "wk": (3, 8), "wv": (3, 6), "wo": (6, 4)}))
    flops = {layer.node: layer.flops(analysis.cost.sizes) for layer in analysis.layers}
    assert flops["s"] == 2 * 2 * 5 * 5 * 8
    assert flops["o"] == 2 * 2 * 5 * 5 * 6
