# SPDX-License-Identifier: Apache-2.0
"""Rules of reductions: sums and means over channels shrink, all others freeze."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from oracle_check import analyze, check
from rule_cases import BOTH, Case, Stays, groups, rule_tests
from tiny_models import chain, model

ALL = (
    *("ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceProd"),
)
EXACT = ALL[:5]


def _over_channels(op: str, keepdims: int = 1, extra: str = "") -> Case:
    """Scale `h` by a reduction over its channels."""
    text = f"r = {op} <keepdims = {keepdims}> (h, axes)\n"
    text += "m = Mul (h, r)" if keepdims else "u = Unsqueeze (r, axes)\n m = Mul (h, u)"
    return Case(f"{op}-{'keepdims' if keepdims else 'dropped'}", chain(text, opset=18, axes=[1]))


CASES = [
    *[_over_channels(op) for op in EXACT],
    _over_channels("ReduceMean", 0),
    _over_channels("ReduceSum", 0),
    *[Case(f"{op}-over-space", chain(f"a = Abs (h)\n m = {op} (a, axes)", opset=18, axes=[3])) for op in ALL],
    Case("over-everything-by-default", chain("r = ReduceMean (h)\n m = Mul (h, r)", opset=18)),
    Case("over-nothing", chain("m = ReduceSum <noop_with_empty_axes = 1> (h)", opset=18)),
    Case("mean-over-channels-and-space", chain("r = ReduceMean (h, axes)\n m = Mul (h, r)", opset=18, axes=[-3, -1])),
    Case(
        # Global response normalisation: a norm over space, divided by its mean over channels.
        "response-normalization",
        chain(
            "g = ReduceL2 (h, s)\n r = ReduceMean (g, c)\n n = Div (g, r)\n m = Mul (h, n)", opset=18, s=[2, 3], c=[1]
        ),
    ),
    Case(
        "two-groups-in-one-mean",
        chain(
            "a = Conv (x, second)\n c = Concat <axis = 1> (h, a)\n r = ReduceMean (c, axes)\n m = Mul (h, r)",
            {"second": (4, 3, 1, 1)},
            opset=18,
            axes=[1],
        ),
        {"h": (8, BOTH), "a": (4, "second.0 out")},
    ),
]


def _frozen(op: str) -> Stays:
    proto = model(
        f"""(float[2,3,6,6] x) => (float[] y) {{
            h = Conv (x, first)
            a = Abs (h)
            r = {op} (a, axes)
            n = Conv (r, middle)
            y = Conv (n, last)
        }}""",
        {"first": (8, 3, 1, 1), "middle": (6, 1, 1, 1), "last": (2, 6, 1, 1)},
        opset=18,
        axes=[1],
    )
    return Stays(op, proto, (op, "r"), groups={"n": (6, "middle.0 out, last.1 in")})


STAYS = [_frozen(op) for op in ALL[5:]]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_freezes_positions_of_extremes(op: str) -> None:
    text = f"(float[2,3,6,6] x) => (int64[] y) {{ h = Conv (x, first)\n y = {op} <axis = -3> (h) }}"
    analysis = analyze(model(text, {"first": (8, 3, 1, 1)}))
    assert analysis.groups == ()
    assert (op, "y") in {(entry.kind, entry.node) for entry in analysis.frozen}


@pytest.mark.parametrize("keepdims", [0, 1])
def test_keeps_channels_of_positions_along_other_axes(keepdims: int) -> None:
    text = f"i = ArgMax <axis = 2, keepdims = {keepdims}> (h)\n f = Cast <to = 1> (i)\n"
    text += "m = Mul (h, f)" if keepdims else "u = Unsqueeze (f, at)\n m = Mul (h, u)"
    outcome = check(
        chain(text, **(dict[str, Any]() if keepdims else {"at": [2]}))
    )  # the numbers behind it are not compared
    assert groups(outcome.analysis) == {"h": (8, frozenset(BOTH.split(", ")))}


def test_freezes_where_axes_are_computed_from_data() -> None:
    text = """(float[2,3,6,6] x, int64[1] axes) => (float[2,8,6,6] y) {
        h = Conv (x, first)
        r = ReduceSum (h, axes)
        y = Mul (h, r)
    }"""
    analysis = analyze(model(text, {"first": (8, 3, 1, 1)}))
    assert analysis.groups == ()


@pytest.mark.parametrize("op", EXACT)
@pytest.mark.parametrize("opset", [7, 11, 13, 18])
def test_axes_as_attribute_and_as_input(op: str, opset: int) -> None:
    by_input = opset >= (13 if op == "ReduceSum" else 18)
    text = f"r = {op} (h, axes)" if by_input else f"r = {op} <axes = [1]> (h)"
    given: dict[str, Any] = {"axes": [1]} if by_input else {}
    assert check(chain(f"{text}\n m = Mul (h, r)", opset=opset, **given)).effect > 1e-3


def test_mean_is_scaled_by_the_share_that_is_kept() -> None:
    pruned = check(chain("r = ReduceMean (h, axes)\n m = Mul (h, r)", opset=18, axes=[1])).pruned
    added = {
        t.name: numpy_helper.to_array(t) for t in pruned.graph.initializer if t.name not in ("first", "last", "axes")
    }
    assert [float(value) for value in added.values()] == [0.5]
    assert [node.op_type for node in pruned.graph.node] == ["Conv", "ReduceMean", "Mul", "Mul", "Conv"]


def test_mean_over_whole_axes_is_not_scaled() -> None:
    pruned = check(chain("m = ReduceMean (h, axes)", opset=18, axes=[2, 3])).pruned
    assert [node.op_type for node in pruned.graph.node] == ["Conv", "ReduceMean", "Conv"]


def test_mean_of_doubles_is_scaled_in_doubles() -> None:
    text = "d = Cast <to = 11> (h)\n q = ReduceMean (d, axes)\n r = Cast <to = 1> (q)\n m = Mul (h, r)"
    pruned = check(chain(text, opset=18, axes=[1])).pruned
    (factor,) = (t for t in pruned.graph.initializer if t.name not in ("first", "last", "axes"))
    assert numpy_helper.to_array(factor).dtype == np.float64
