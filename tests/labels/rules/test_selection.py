# SPDX-License-Identifier: Apache-2.0
"""Rules of `Slice`, `Gather` and `Pad`, and how their bounds, indices and amounts follow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from oracle_check import Outcome, analyze, check, run
from rule_cases import BOTH, Case, Stays, groups, rule_tests
from tiny_models import chain, model

JOIN = "\n s = Sigmoid (b)\n m = Concat <axis = 1> (a, s)"
EMBEDDED = """(int64[2,5] x) => (float[] y) {
    h = Gather (table, x)
    m = Relu (h)
    y = MatMul (m, last)
}"""

CASES = [
    Case(
        "slice-front",
        chain("m = Slice (h, zero, to, at)", after=5, zero=[0], to=[5], at=[1]),
        {"h": (5, BOTH), "h+": (3, "first.0 out")},
    ),
    Case(
        "slice-back-with-negative-bounds",
        chain("m = Slice (h, start, to, at)", after=3, start=[-3], to=[2**62], at=[-3]),
        {"h": (5, "first.0 out"), "h+": (3, BOTH)},
    ),
    Case(
        "slice-middle-and-space",
        chain("m = Slice (h, start, to, at, by)", after=4, start=[2, 5], to=[6, -7], at=[1, 2], by=[1, -2]),
        {"h": (4, "first.0 out"), "h+": (4, BOTH)},
    ),
    Case("slice-space", chain("m = Slice (h, start, to, at, by)", start=[1], to=[6], at=[3], by=[2])),
    Case(
        "slice-both-halves",
        chain("a = Slice (h, z, f, at)\n b = Slice (h, f, e, at)" + JOIN, z=[0], f=[4], e=[8], at=[1]),
        {"h": (4, BOTH), "h+": (4, BOTH)},
    ),
    Case(
        "gather-some",
        chain("m = Gather <axis = 1> (h, at)", after=4, at=[6, 0, -7, 3]),
        {"h": (4, BOTH), "h+": (4, "first.0 out")},
    ),
    Case("gather-repeats", chain("m = Gather <axis = 1> (h, at)", after=16, at=[*range(8), *range(8)])),
    Case("gather-shuffles", chain("m = Gather <axis = -3> (h, at)", at=[3, 1, 4, 0, 5, 7, 2, 6])),
    Case("gather-space", chain("m = Gather <axis = 2> (h, at)", at=[3, 1])),
    Case(
        "gather-rows-of-a-table",
        model(EMBEDDED, {"table": (2, 8), "last": (8, 2)}),
        {"h": (8, "table.1 out, last.0 in")},
    ),
    Case("pad-space", chain("m = Pad (h, by)", by=[0, 0, 1, 1, 0, 0, 1, 1])),
    Case("pad-space-with-a-value", chain("m = Pad (h, by, v)", by=[0, 0, 1, 1, 0, 0, 1, 1], v=np.float32(0.5))),
    Case("pad-space-reflected", chain('m = Pad <mode = "reflect"> (h, by)', by=[0, 0, 1, 1, 0, 0, 1, 1])),
    Case("pad-cuts-space", chain("m = Pad (h, by)", by=[0, 0, -1, 0, 0, 0, 0, -2])),
    Case(
        "pad-channels",
        chain("m = Pad (h, by)", after=13, by=[0, 2, 0, 0, 0, 3, 0, 0]),
        {"h": (8, BOTH), "y": (5, "last.1 in")},
    ),
    Case(
        "pad-channels-by-axes",
        chain("m = Pad (h, by, , at)", after=11, opset=18, by=[0, 3], at=[-3]),
        {"h": (8, BOTH), "y": (3, "last.1 in")},
    ),
    Case(
        "pad-channels-with-a-value",
        chain("m = Pad (h, by, v)", after=13, by=[0, 2, 0, 0, 0, 3, 0, 0], v=np.float32(0.5)),
        {"h": (8, BOTH), "y": (5, "last.1 in")},
    ),
    Case(
        "pad-cuts-channels",
        chain("m = Pad (h, by)", after=6, by=[0, -2, 0, 0, 0, 0, 0, 0]),
        {"h": (2, "first.0 out"), "h+": (6, BOTH)},
    ),
    Case(
        # The short cut of the residual networks for CIFAR: every second position, channels of zeros around.
        "shortcut-of-cifar",
        model(
            """(float[2,3,6,6] x) => (float[] y) {
                h = Conv (x, first)
                c = Slice (h, start, to, at, by)
                p = Pad (c, amounts)
                r = Conv <strides = [2, 2]> (h, branch)
                m = Add (r, p)
                y = Conv (m, last)
            }""",
            {"first": (4, 3, 1, 1), "branch": (8, 4, 1, 1), "last": (2, 8, 1, 1)},
            start=[0, 0],
            to=[6, 6],
            at=[2, 3],
            by=[2, 2],
            amounts=[0, 2, 0, 0, 0, 2, 0, 0],
        ),
        {
            "h": (4, "first.0 out, branch.1 in, branch.0 out, last.1 in"),
            "r": (4, "branch.0 out, last.1 in"),
        },
    ),
]


def _frozen(name: str, text: str, kind: str, after: int = 8, **constants: Any) -> Stays:
    proto = model(
        f"""(float[2,3,6,6] x) => (float[a,b,c,d] y) {{
            h = Conv (x, first)
            {text}
            n = Conv (m, middle)
            y = Conv (n, last)
        }}""",
        {"first": (8, 3, 1, 1), "middle": (6, after, 1, 1), "last": (2, 6, 1, 1)},
        **constants,
    )
    return Stays(name, proto, (kind, "m"), groups={"n": (6, "middle.0 out, last.1 in")})


STAYS = [
    _frozen("slice-with-steps", "m = Slice (h, s, e, at, by)", "Slice", 4, s=[0], e=[8], at=[1], by=[2]),
    _frozen("slice-backwards", "m = Slice (h, s, e, at, by)", "Slice", s=[-1], e=[-99], at=[1], by=[-1]),
    _frozen("pad-reflected", 'm = Pad <mode = "reflect"> (h, by)', "Pad", 10, by=[0, 1, 0, 0, 0, 1, 0, 0]),
    replace(
        _frozen(
            "gather-one-of-one",
            "g = Gather <axis = 1> (h, at)\n m = Unsqueeze (g, one)",
            "Gather",
            1,
            at=np.int64(3),
            one=[1],
        ),
        kind=("Gather", "g"),
        groups={"h": (7, "first.0 out"), "n": (6, "middle.0 out, last.1 in")},
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("m = Slice (h, given, to, at)", "Slice", id="slice"),
        pytest.param("q = Concat <axis = 0> (zeros, given, zeros, zeros)\n m = Pad (h, q)", "Pad", id="pad"),
        pytest.param("m = Gather <axis = 1> (h, given)", "Gather", id="gather"),
    ],
)
def test_freezes_what_is_chosen_while_running(text: str, kind: str) -> None:
    proto = model(
        f"""(float[2,3,6,6] x, int64[1] given) => (float[a,b,c,d] y) {{
            g = Conv (x, zero)
            h = Conv (g, first)
            {text}
            y = Relu (m)
        }}""",
        {"zero": (5, 3, 1, 1), "first": (8, 5, 1, 1)},
        to=[8],
        at=[1],
        zeros=[0, 0],
    )
    analysis = analyze(proto)
    assert groups(analysis) == {"g": (5, frozenset({"zero.0 out", "first.1 in"}))}
    assert {entry.kind for entry in analysis.frozen} & {kind, "unknown shape"}


def _keep(proto: ModelProto, channels: list[int]) -> Outcome:
    """Keep these channels of `h` (and all of what belongs to other layers)."""
    analysis = analyze(proto)
    labels = analysis.scope.values["h"][1].expand()
    atoms = analysis.grouping.atom_of[labels]
    keep = np.ones(int(analysis.grouping.sizes.sum()), dtype=np.bool_)
    keep[atoms[atoms >= 0]] = False
    keep[atoms[channels]] = True
    return check(analysis, keep)


def _given(outcome: Outcome, op: str) -> list[Any]:
    """Constant inputs of the first node of an operator, None for computed ones."""
    node = next(node for node in outcome.pruned.graph.node if node.op_type == op)
    stored = {t.name: numpy_helper.to_array(t).tolist() for t in outcome.pruned.graph.initializer}
    return [stored.get(name) for name in node.input[1:]]


def test_bounds_move_to_the_number_of_kept_slices_before_them() -> None:
    proto = chain("m = Slice (h, start, to, at)", after=4, start=[2], to=[-2], at=[1])
    assert _given(_keep(proto, [0, 3, 4, 7]), "Slice") == [[1], [3], [1]]


def test_bounds_that_still_say_the_right_thing_are_left_alone() -> None:
    proto = chain("m = Slice (h, start, to, at)", after=6, start=[2], to=[2**62], at=[1])
    assert _given(_keep(proto, [0, 1, 5]), "Slice") == [[2], [2**62], [1]]


def test_bounds_as_attributes() -> None:
    proto = chain("m = Slice <starts = [2, 1], ends = [6, 5], axes = [1, 2]> (h)", after=4, opset=9)
    outcome = _keep(proto, [0, 3, 4, 7])
    node = next(node for node in outcome.pruned.graph.node if node.op_type == "Slice")
    assert {a.name: list(a.ints) for a in node.attribute} == {"starts": [1, 1], "ends": [3, 5], "axes": [1, 2]}


@pytest.mark.parametrize("channels", [[0, 1, 2, 3, 5, 6, 7], [0, 1, 5, 6, 7], [0, 5]])
def test_bounds_computed_from_the_number_of_channels(channels: list[int]) -> None:
    text = """n = Shape <start = 1, end = 2> (h)
        half = Div (n, two)
        a = Slice (h, zero, half, one)
        b = Slice (h, half, n, one)"""
    _keep(chain(text + JOIN, two=[2], zero=[0], one=[1]), channels)


def test_bounds_on_another_axis_do_not_follow_the_channels() -> None:
    """A length that happens to be computed from the channels stays what it was."""
    text = """n = Shape <start = 1, end = 2> (h)
        m = Slice (h, zero, n, at)"""
    outcome = _keep(chain(text, spatial=(12, 12), zero=[0], at=[2]), [1, 2, 5])
    assert outcome.values["m"].shape == (2, 3, 8, 12)


def test_indices_move_up() -> None:
    proto = chain("m = Gather <axis = 1> (h, at)", after=4, at=[6, 0, -7, 3])
    assert _given(_keep(proto, [0, 2, 3, 6]), "Gather") == [[3, 0, 2]]


def test_indices_in_int32_stay_int32() -> None:
    proto = chain("m = Gather <axis = 1> (h, at)", at=np.arange(8, dtype=np.int32)[::-1].copy())
    outcome = _keep(proto, [0, 5])
    (added,) = (t for t in outcome.pruned.graph.initializer if t.name not in ("first", "last"))
    assert numpy_helper.to_array(added).dtype == np.int32
    assert numpy_helper.to_array(added).tolist() == [1, 0]


def test_bounds_of_a_fixed_axis_computed_from_the_channels_of_another_tensor() -> None:
    proto = model(
        """(float[2,3,12,12] x) => (float[] y) {
            h = Conv (x, first)
            n = Shape <start = 1, end = 2> (h)
            c = Slice (x, zero, n, at)
            a = Conv (c, other)
            b = Conv (h, last)
            p = GlobalAveragePool (b)
            y = Add (a, p)
        }""",
        {"first": (8, 3, 1, 1), "other": (2, 3, 1, 1), "last": (2, 8, 1, 1)},
        zero=[0],
        at=[2],
    )
    assert check(proto).values["c"].shape == (2, 3, 8, 12)


def test_index_of_the_last_channel_computed_from_their_number() -> None:
    text = """n = Shape <start = 1, end = 2> (h)
        end = Sub (n, one)
        e = Gather <axis = 1> (h, end)
        m = Add (h, e)"""
    outcome = check(chain(text, one=[1]))
    assert outcome.analysis.grouping.sizes.tolist() == [7]


def test_amounts_of_padding_as_attribute() -> None:
    proto = chain("m = Pad <pads = [0, 1, 0, 1, 0, 2, 0, 0]> (h)", after=11, opset=10)
    analysis = analyze(proto)
    assert sorted(analysis.grouping.sizes.tolist()) == [3, 8]  # a slice in front goes like the two behind
    assert check(analysis).effect > 1e-3


def test_amounts_of_padding_computed_through_constants() -> None:
    """The exported residual networks for CIFAR reverse a list of amounts in the graph."""
    text = """r = Reshape (amounts, pair)
        s = Slice (r, from, to, axis, back)
        t = Transpose <perm = [1, 0]> (s)
        f = Reshape (t, flat)
        by = Cast <to = 7> (f)
        m = Pad (h, by)"""
    constants: dict[str, Any] = {
        "amounts": [0, 0, 0, 0, 2, 3, 0, 0],
        "pair": [4, 2],
        "from": [-1],
        "to": [-99],
        "axis": [0],
    }
    outcome = check(chain(text, after=13, back=[-1], flat=[-1], **constants))
    assert sorted(outcome.analysis.grouping.sizes.tolist()) == [5, 8]


def test_padding_of_channels_shrinks() -> None:
    analysis = analyze(chain("m = Pad (h, by)", after=13, by=[0, 2, 1, 0, 0, 3, 0, 0]))
    keep = np.array([True] * 8 + [True, False] + [False, True, True])
    assert _given(check(analysis, keep), "Pad") == [[0, 1, 1, 0, 0, 2, 0, 0]]


def test_padding_of_channels_beside_open_amounts() -> None:
    text = """(float[2,3,H,6] x) => (float[a,b,c,d] y) {
        h = Conv (x, first)
        n = Shape <start = 2, end = 3> (h)
        by = Concat <axis = 0> (front, n, rest)
        m = Pad (h, by)
        y = Conv (m, last)
    }"""
    weights = {"first": (8, 3, 1, 1), "last": (2, 12, 1, 1)}
    analysis = analyze(model(text, weights, front=[0, 4], rest=[0, 0, 0, 0, 0]), x=(2, 3, 5, 6))
    assert sorted(analysis.grouping.sizes.tolist()) == [4, 8]
    pruned = check(analysis, np.arange(12) % 2 == 0).pruned
    assert run(pruned, {"x": np.ones((2, 3, 4, 6), dtype=np.float32)}, ["m"])["m"].shape == (2, 6, 8, 6)
