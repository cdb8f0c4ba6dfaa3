# SPDX-License-Identifier: Apache-2.0
"""Groups: which atoms may be exchanged for one another, and which stay."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from oracle_check import analyze, check
from tiny_models import chain, model

from graphprune.analysis.groups import Grouping
from graphprune.errors import InternalError
from graphprune.labels.vector import Labels

RESIDUAL = """(float[2,3,6,6] x) => (float[] y) {
    h = Conv (x, first, b)
    n = BatchNormalization (h, s, t, mean, var)
    r = Relu (n)
    c = Conv (r, middle)
    d = Conv (c, back)
    a = Add (d, r)
    y = Conv (a, last)
}"""
WEIGHTS = {
    "first": (8, 3, 1, 1),
    "b": (8,),
    "s": (8,),
    "t": (8,),
    "mean": (8,),
    "var": (8,),
    "middle": (6, 8, 1, 1),
    "back": (8, 6, 1, 1),
    "last": (2, 8, 1, 1),
}


def test_groups_in_graph_order_with_their_members() -> None:
    groups = analyze(model(RESIDUAL, WEIGHTS)).groups
    assert [(g.id, g.name, g.size, g.channels, g.exact) for g in groups] == [
        ("g000", "h", 8, 1, True),
        ("g001", "c", 6, 1, True),
    ]
    first = {(m.initializer, m.axis): m for m in groups[0].members}
    assert {key: (m.role, m.op, m.slot, m.node) for key, m in first.items()} == {
        ("first", 0): ("out", "Conv", 1, "h"),
        ("b", 0): ("per_channel", "Conv", 2, "h"),
        ("s", 0): ("per_channel", "BatchNormalization", 1, "n"),
        ("t", 0): ("per_channel", "BatchNormalization", 2, "n"),
        ("mean", 0): ("per_channel", "BatchNormalization", 3, "n"),
        ("var", 0): ("per_channel", "BatchNormalization", 4, "n"),
        ("middle", 1): ("in", "Conv", 1, "c"),
        ("back", 0): ("out", "Conv", 1, "d"),
        ("last", 1): ("in", "Conv", 1, "y"),
    }
    assert all(m.positions.tolist() == m.atoms.tolist() == list(range(8)) for m in first.values())


def test_atoms_that_touch_other_axes_are_other_groups() -> None:
    """Of the channels, three go on to a second reader."""
    text = "q = Slice (h, from, to, at)\n c = Conv (q, branch)\n m = Add (h, c)"
    analysis = analyze(
        chain(text, {"branch": (8, 3, 1, 1)}, **{"from": [2], "to": [5], "at": [1]})  # type: ignore[arg-type]
    )
    first, second = analysis.groups
    assert (first.size, second.size) == (5, 3)
    assert second.members[0].positions.tolist() == [2, 3, 4]
    assert second.members[0].atoms.tolist() == [0, 1, 2]


def test_an_atom_that_is_alone_stays() -> None:
    """The middle channel has a use of its own: it could only be kept."""
    analysis = analyze(chain("g = Gather <axis = 1> (h, at)\n m = Concat <axis = 1> (h, g)", after=9, at=[3]))
    (group,) = analysis.groups
    assert group.size == 7
    assert 3 not in group.members[0].positions.tolist()


def test_atoms_of_one_group_are_exchangeable() -> None:
    analysis = analyze(model(RESIDUAL, WEIGHTS))
    costs = []
    for atom in range(8):
        keep = np.ones(14, dtype=np.bool_)
        keep[atom] = False
        costs.append({t.name: tuple(t.dims) for t in check(analysis, keep).pruned.graph.initializer})
    assert all(each == costs[0] for each in costs)


def test_channels_nobody_stores_are_no_group() -> None:
    """Splitting the input and joining it again has no weight on its channels."""
    proto = model("(float[2,8,6,6] x) => (float[] y) { a, b = Split <axis = 1> (x)\n y = Add (a, b) }", opset=13)
    assert analyze(proto).groups == ()


def test_every_group_has_a_producer_or_a_reader_of_its_own_name() -> None:
    for group in analyze(model(RESIDUAL, WEIGHTS)).groups:
        assert group.members
        assert group.name in {member.node for member in group.members}


def _grouping() -> Grouping:
    """Labels 1..6: atoms 0 and 1 of group 0, atoms 2..4 of group 1, and one that stays."""
    return Grouping(np.array([-1, 0, 1, 2, 3, 4, -1]), np.array([0, 0, 1, 1, 1]))


def test_grouping_numbers() -> None:
    grouping = _grouping()
    assert grouping.sizes.tolist() == [2, 3]
    assert grouping.starts.tolist() == [0, 2, 5]
    assert grouping.index_of.tolist() == [0, 1, 0, 1, 2]
    assert [b - a for a, b in pairwise(grouping.starts.tolist())] == grouping.sizes.tolist()


@pytest.mark.parametrize("widths", [(2, 3), (1, 2), (2, 1)])
def test_length_is_the_number_of_kept_slices(widths: tuple[int, int]) -> None:
    grouping = _grouping()
    labels = Labels(np.array([1, 2, 0, 6, 3, 4, 5]), 3, 2)
    keep = np.array([at < widths[0] for at in range(2)] + [at < widths[1] for at in range(3)])
    kept = grouping.kept(labels, keep)
    assert len(kept) == len(labels) == 42
    assert int(kept.sum()) == grouping.length(labels).at(np.asarray(widths))
    assert kept.tolist() == np.append(keep, True)[grouping.atom_of[labels.expand()]].tolist()


def test_atoms_that_touch_an_axis_unequally_are_a_fault() -> None:
    with pytest.raises(InternalError, match="equally often"):
        _grouping().length(Labels(np.array([1, 1, 2])))


def test_groups_are_plain_data() -> None:
    (first, _) = analyze(model(RESIDUAL, WEIGHTS)).groups
    assert replace(first, name="other").members is first.members
