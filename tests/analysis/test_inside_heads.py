# SPDX-License-Identifier: Apache-2.0
"""Where whole heads were asked for and cannot go, it is said that a part of each head does."""

from __future__ import annotations

import pytest
from onnx import ModelProto
from oracle_check import analyze
from tiny_models import model

from graphprune.choices import Attention
from graphprune.report.summary import analysis_notes


def _attention(outputs: str = "float[2,5,4] y", middle: str = "p = Softmax <axis = 3> (s)") -> ModelProto:
    text = f"""(float[2,5,3] x) => ({outputs}) {{
        q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)
        qs = Reshape (q, apart) ks = Reshape (k, apart) vs = Reshape (v, apart)
        qt = Transpose <perm = [0, 2, 1, 3]> (qs) kt = Transpose <perm = [0, 2, 3, 1]> (ks)
        vt = Transpose <perm = [0, 2, 1, 3]> (vs)
        s = MatMul (qt, kt) {middle}
        o = MatMul (p, vt)
        b = Transpose <perm = [0, 2, 1, 3]> (o)
        j = Reshape (b, together)
        y = MatMul (j, last)
    }}"""
    weights = {"wq": (3, 24), "wk": (3, 24), "wv": (3, 24), "last": (24, 4)}
    return model(text, weights, apart=[2, 5, 4, 6], together=[2, 5, 24])


WITH_SCORES = "float[2,5,4] y, float[2,4,5,5] p"


@pytest.mark.parametrize(
    ("proto", "nodes", "text"),
    [
        pytest.param(
            *(_attention(WITH_SCORES), ["qs", "ks", "vs", "j"], "(graph output: reaches the graph output 'p')"),
            id="scores-are-an-output",
        ),
        pytest.param(
            *(
                _attention(middle="p = Softmax <axis = 1> (s)"),
                ["qs", "ks"],
                "(Softmax: elements along this axis are combined)",
            ),
            id="softmax-over-heads",
        ),
    ],
)
def test_parts_of_heads_that_go_instead_are_named(proto: ModelProto, nodes: list[str], text: str) -> None:
    analysis = analyze(proto)
    assert sorted(group.size for group in analysis.groups) == [6, 6]
    assert sorted(analysis.inside_heads[0]) == sorted(nodes)
    (note,) = analysis_notes(analysis)
    assert note.endswith("so a part of each head does, as by --attention head-dim")
    assert text in note


@pytest.mark.parametrize(
    ("proto", "attention"),
    [
        pytest.param(_attention(), "heads", id="whole-heads-go"),
        pytest.param(_attention(WITH_SCORES), "head-dim", id="asked-for"),
    ],
)
def test_nothing_is_said_otherwise(proto: ModelProto, attention: Attention) -> None:
    analysis = analyze(proto, attention=attention)
    assert analysis.inside_heads == ((), None)
    assert analysis_notes(analysis) == ()
