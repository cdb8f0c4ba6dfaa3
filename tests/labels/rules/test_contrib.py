# SPDX-License-Identifier: Apache-2.0
"""Rules of onnxruntime's own activations."""

from __future__ import annotations

import pytest
from oracle_check import check
from rule_cases import groups
from tiny_models import model


@pytest.mark.parametrize(
    ("node", "bias"),
    [
        ("Gelu (h)", False),
        ("QuickGelu (h)", False),
        ("FastGelu (h)", False),
        ("FastGelu (h, b)", True),
        ("BiasGelu (h, b)", True),
    ],
)
def test_activations_pass(node: str, bias: bool) -> None:
    text = f"""(float[2,5,3] x) => (float[2,5,2] y) {{
        h = MatMul (x, first)
        m = com.microsoft.{node}
        y = MatMul (m, last)
    }}"""
    shapes = {"first": (3, 8), "last": (8, 2), **({"b": (8,)} if bias else {})}
    outcome = check(model(text, shapes, domains=', "com.microsoft": 1'))
    expected = {"first.1 out", "last.0 in", *(["b.0 per_channel"] if bias else [])}
    assert groups(outcome.analysis) == {"h": (8, frozenset(expected))}
    assert outcome.effect > 1e-3
