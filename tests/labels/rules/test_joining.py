# SPDX-License-Identifier: Apache-2.0
"""Rules of `Concat` and `Split`, and how sizes of a split follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from oracle_check import Outcome, analyze, check
from rule_cases import BOTH, Case, Stays, rule_tests
from tiny_models import chain, model

TWO = {"second": (4, 3, 1, 1)}

CASES = [
    Case(
        "concat",
        chain("a = Conv (x, second)\n m = Concat <axis = 1> (h, a)", TWO, after=12),
        {"h": (8, BOTH), "a": (4, "second.0 out, last.1 in")},
    ),
    Case(
        "concat-negative-axis",
        chain("a = Conv (x, second)\n m = Concat <axis = -3> (a, h)", TWO, after=12),
        {"h": (8, BOTH), "a": (4, "second.0 out, last.1 in")},
    ),
    Case("concat-of-one", chain("m = Concat <axis = 1> (h)")),
    Case("concat-with-itself", chain("m = Concat <axis = 1> (h, h)", after=16), {"h": (8, BOTH)}),
    Case(
        "concat-over-space-couples",
        chain("a = Conv (x, second)\n m = Concat <axis = 2> (h, a)", {"second": (8, 3, 1, 1)}),
        {"h": (8, f"{BOTH}, second.0 out")},
    ),
    Case(
        "concat-over-space-with-a-constant",
        chain("m = Concat <axis = 3> (h, k)", {"k": (2, 8, 6, 1)}),
        {"h": (8, f"{BOTH}, k.1 per_channel")},
    ),
    Case(
        "concat-with-constant-channels",
        chain("m = Concat <axis = 1> (h, k)", {"k": (2, 3, 6, 6)}, after=11),
        {"h": (8, BOTH), "m": (3, "k.1 per_channel, last.1 in")},
    ),
    Case(
        "shortcut-padded-with-zeros",
        chain(
            "p = Concat <axis = 1> (h, k)\n g = Conv (h, second)\n m = Add (p, g)",
            {"second": (11, 8, 1, 1)},
            after=11,
            k=np.zeros((2, 3, 6, 6), dtype=np.float32),
        ),
        {
            "h": (8, f"{BOTH}, second.0 out, second.1 in"),
            "g": (3, "k.1 per_channel, second.0 out, last.1 in"),
        },
    ),
    Case("concat-with-input-channels", chain("m = Concat <axis = 1> (x, h)", after=11)),
    Case(
        "split-and-join",
        chain("a, b = Split <axis = 1> (h, parts)\n s = Sigmoid (b)\n m = Concat <axis = 1> (a, s)", parts=[3, 5]),
        {"h": (3, BOTH), "h+": (5, BOTH)},
    ),
    Case(
        "split-halves-that-meet",
        chain("a, b = Split <axis = 1> (h)\n s = Sigmoid (b)\n m = Mul (a, s)", after=4, opset=13),
        {"h": (4, BOTH)},
    ),
    Case("split-over-space", chain("a, b = Split <axis = 2> (h)\n m = Mul (a, b)", opset=13), {"h": (8, BOTH)}),
]

STAYS = [
    Stays(
        "concat-over-space-with-the-input",
        model(
            """(float[2,3,6,6] x) => (float[] y) {
                g = Conv (x, zero)
                h = Conv (g, first)
                m = Concat <axis = 2> (h, x)
                y = Conv (m, last)
            }""",
            {"zero": (4, 3, 1, 1), "first": (3, 4, 1, 1), "last": (2, 3, 1, 1)},
        ),
        ("fixed axis", "m"),
        groups={"g": (4, "zero.0 out, first.1 in")},
    ),
    Stays(
        "split-into-single-channels",
        chain("a, b = Split <axis = 1> (h, parts)\n m = Concat <axis = 1> (b, a)", width=9, parts=[8, 1]),
        ("single slice", "a"),
        groups={"h": (8, BOTH)},
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


def test_keeps_parts_of_a_split_apart() -> None:
    (case,) = (case for case in CASES if case.id == "split-and-join")
    first, second = analyze(case.model).groups
    positions = {m.initializer: m.positions.tolist() for m in first.members}
    assert positions == {"first": [0, 1, 2], "last": [0, 1, 2]}
    assert second.size == 5


JOIN = "\n s = Sigmoid (b)\n m = Concat <axis = 1> (a, s)"
FORMS = {
    "split-attribute-11": chain("a, b = Split <axis = 1, split = [3, 5]> (h)" + JOIN, opset=11),
    "equal-parts-7": chain("a, b = Split <axis = 1> (h)" + JOIN, opset=7),
    "split-input-13": chain("a, b = Split <axis = 1> (h, parts)" + JOIN, opset=13, parts=[3, 5]),
    "equal-parts-13": chain("a, b = Split <axis = 1> (h)" + JOIN, opset=13),
    "num-outputs-18": chain("a, b = Split <axis = 1, num_outputs = 2> (h)" + JOIN, opset=18),
    "split-input-18": chain("a, b = Split <axis = 1> (h, parts)" + JOIN, opset=18, parts=[3, 5]),
    "uneven-outputs-18": chain("a, b = Split <axis = 1, num_outputs = 2> (h)" + JOIN, width=9, opset=18),
}


def _cut(proto: ModelProto, left: list[int], right: list[int]) -> Outcome:
    """Keep these channels of `h`; groups are the parts of the split."""
    analysis = analyze(proto)
    first = int(analysis.grouping.sizes[0])
    keep = np.zeros(int(analysis.grouping.sizes.sum()), dtype=np.bool_)
    keep[left] = True
    keep[[first + at for at in right]] = True
    return check(analysis, keep)


def _sizes(outcome: Outcome) -> tuple[dict[str, Any], list[int] | None]:
    """Attributes of the split, and its second input."""
    (node,) = (node for node in outcome.pruned.graph.node if node.op_type == "Split")
    attributes = {a.name: list(a.ints) or a.i for a in node.attribute if a.name != "axis"}
    stored = {t.name: numpy_helper.to_array(t).tolist() for t in outcome.pruned.graph.initializer}
    return attributes, stored[node.input[1]] if len(node.input) > 1 else None


@pytest.mark.parametrize("name", FORMS)
def test_sizes_follow_in_every_form(name: str) -> None:
    attributes, given = _sizes(_cut(FORMS[name], [1, 2], [0]))
    if int(name.rsplit("-", 1)[1]) < 13:
        assert (attributes, given) == ({"split": [2, 1]}, None)
    elif name.endswith("outputs-18"):
        assert (attributes, given) == ({"num_outputs": 2}, None)  # 2 and 1 are what it says itself
    else:
        assert (attributes, given) == ({}, [2, 1])


@pytest.mark.parametrize("name", ["equal-parts-7", "equal-parts-13", "num-outputs-18"])
def test_equal_parts_are_left_alone(name: str) -> None:
    before = next(node for node in FORMS[name].graph.node if node.op_type == "Split")
    outcome = _cut(FORMS[name], [0, 3], [1, 2])
    after = next(node for node in outcome.pruned.graph.node if node.op_type == "Split")
    assert after.SerializeToString() == before.SerializeToString()


def test_sizes_that_are_computed_follow_by_themselves() -> None:
    text = f"""n = Shape <start = 1, end = 2> (h)
        half = Div (n, two)
        parts = Concat <axis = 0> (half, half)
        a, b = Split <axis = 1> (h, parts) {JOIN}"""
    outcome = _cut(chain(text, two=[2]), [0, 3], [1, 2])
    assert [node.op_type for node in outcome.pruned.graph.node][:5] == ["Conv", "Shape", "Div", "Concat", "Split"]
    assert "parts" in next(node for node in outcome.pruned.graph.node if node.op_type == "Split").input
    assert _sizes(_cut(chain(text, two=[2]), [0, 3], [1]))[1] == [2, 1]
