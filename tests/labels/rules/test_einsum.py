# SPDX-License-Identifier: Apache-2.0
"""Rules of `Einsum`: any equation without an index twice in one operand."""

from __future__ import annotations

import pytest
from oracle_check import analyze, check
from rule_cases import Case, Stays, rule_tests
from tiny_models import chain, model

from graphprune.labels.rules.einsum import Equation, parse

MATRIX = {"first": (3, 8), "last": (6, 2)}


def _dense(equation: str, shape: tuple[int, ...], members: str, *, order: str = "h, w") -> Case:
    text = f"""(float[4,5,3] x) => (float[] y) {{
        h = MatMul (x, first)
        m = Einsum <equation = "{equation}"> ({order})
        y = MatMul (m, last)
    }}"""
    inner, outer = members.split(" | ")
    groups = {"h": (8, f"first.1 out, {inner}"), "m": (6, f"{outer}, last.0 in")}
    return Case(equation, model(text, {**MATRIX, "w": shape}), groups)


CASES = [
    _dense("bsi,io->bso", (8, 6), "w.0 in | w.1 out"),
    _dense("oi, bsi -> bso", (6, 8), "w.1 in | w.0 out", order="w, h"),
    _dense("...i,io->...o", (8, 6), "w.0 in | w.1 out"),
    _dense("abi,iz", (8, 6), "w.0 in | w.1 out"),
    Case(
        "per-channel",
        chain('m = Einsum <equation = "nchw,c->nchw"> (h, w)', {"w": (8,)}),
        {"h": (8, "first.0 out, w.0 per_channel, last.1 in")},
    ),
    Case("transposed", chain('t = Einsum <equation = "nchw->nwch"> (h) m = Transpose <perm = [0,2,3,1]> (t)')),
    Case("spread", chain('m = Einsum <equation = "nchw,c->nchw"> (h, w)', {"w": (1,)})),
    Case(
        "summed",
        model(
            """(float[4,3] x) => (float[] y) {
                h = MatMul (x, first)
                y = Einsum <equation = "nc->n"> (h)
            }""",
            {"first": (3, 8)},
        ),
        {"h": (8, "first.1 out")},
    ),
    Case(
        "summed-in-a-weight-alone",
        model(
            """(float[4,3] x) => (float[] y) {
                h = MatMul (x, first)
                y = Einsum <equation = "nc,cok->no"> (h, w)
            }""",
            {"first": (3, 8), "w": (8, 2, 5)},
        ),
        {"h": (8, "first.1 out, w.0 in"), "y": (5, "w.2 in")},
    ),
    Case(
        "three-operands",
        model(
            """(float[4,3] x) => (float[] y) {
                h = MatMul (x, first)
                g = MatMul (x, second)
                y = Einsum <equation = "ni,ij,nj->n"> (h, w, g)
            }""",
            {"first": (3, 8), "second": (3, 6), "w": (8, 6)},
        ),
        {"h": (8, "first.1 out, w.0 in"), "g": (6, "second.1 out, w.1 in")},
    ),
]

STAYS = [
    Stays(
        "diagonal",
        model(
            """(float[3,3] x) => (float[] y) {
                h = MatMul (x, first)
                y = Einsum <equation = "ii->i"> (h)
            }""",
            {"first": (3, 3)},
        ),
        ("Einsum", "y"),
    ),
    Stays(
        "meets-the-image",
        chain(
            'm = Einsum <equation = "nchw,nchw->nchw"> (h, x)', {"first": (3, 3, 1, 1), "last": (2, 3, 1, 1)}, width=3
        ),
        ("fixed axis", "m"),
    ),
]

HEADS = """(float[2,5,3] x) => (float[] y) {
    q = Einsum <equation = "bsi,ihd->bhsd"> (x, wq)
    k = Einsum <equation = "bsi,ihd->bhsd"> (x, wk)
    v = Einsum <equation = "bsi,ihd->bhsd"> (x, wv)
    s = Einsum <equation = "bhqd,bhkd->bhqk"> (q, k)
    p = Softmax <axis = -1> (s)
    o = Einsum <equation = "bhqk,bhkd->bqhd"> (p, v)
    y = Einsum <equation = "bqhd,hdo->bqo"> (o, wo)
}"""

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


def test_heads_and_their_sizes_are_groups_of_their_own() -> None:
    shape = (3, 4, 6)
    outcome = check(model(HEADS, {"wq": shape, "wk": shape, "wv": shape, "wo": (4, 6, 2)}))
    assert sorted(group.size for group in outcome.analysis.groups) == [4, 6, 6]
    layer = outcome.analysis.layers[3]
    assert layer.flops(outcome.analysis.cost.sizes) == 2 * 2 * 4 * 5 * 5 * 6


def test_one_operand_costs_nothing() -> None:
    analysis = analyze(chain('t = Einsum <equation = "nchw->nhwc"> (h) m = Transpose <perm = [0,3,1,2]> (t)'))
    assert [layer.op for layer in analysis.layers] == ["Conv", "Conv"]


@pytest.mark.parametrize(
    ("text", "ranks", "expected"),
    [
        ("ij , jk -> ik", (2, 2), Equation((("i", "j"), ("j", "k")), ("i", "k"))),
        ("ba,cb", (2, 2), Equation((("b", "a"), ("c", "b")), ("a", "c"))),
        ("...a,a...->...", (3, 2), Equation(((".1", ".0", "a"), ("a", ".0")), (".1", ".0"))),
        ("a...->...a", (1,), Equation((("a",),), ("a",))),
        ("...b,b", (3, 1), Equation(((".1", ".0", "b"), ("b",)), (".1", ".0"))),
        ("Ab,bC", (2, 2), Equation((("A", "b"), ("b", "C")), ("A", "C"))),
        ("ij->", (2,), Equation((("i", "j"),), ())),
    ],
)
def test_reads_equations(text: str, ranks: tuple[int, ...], expected: Equation) -> None:
    assert parse(text, ranks) == expected


@pytest.mark.parametrize(
    ("text", "ranks"), [("ii->i", (2,)), ("ij->ij", (3,)), ("ij,jk->ik", (2,)), ("ij->ik", (2,)), ("abc->a", (2,))]
)
def test_refuses_equations(text: str, ranks: tuple[int, ...]) -> None:
    assert parse(text, ranks) is None
