# SPDX-License-Identifier: Apache-2.0
"""Resolution: components, freezes, and how choices come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper
from oracle_check import analyze, check
from tiny_models import model

from graphprune.labels.resolve import Attention, Resolver, resolve
from graphprune.labels.space import Alternative, LabelSpace, Reason
from graphprune.labels.vector import Labels
from graphprune.model.graph import Node

NODE = Node(0, helper.make_node("Any", ["x"], ["y"]))
WHY = Reason("test", NODE, "says so")


def _ints(*values: int) -> Any:
    return np.asarray(values, dtype=np.int64)


def _space(labels: int) -> LabelSpace:
    return LabelSpace(count=labels + 1)


def test_couplings_are_transitive() -> None:
    space = _space(6)
    space.unite(Labels(_ints(1, 2)), Labels(_ints(3, 4)), NODE)
    space.unite(Labels(_ints(3, 4)), Labels(_ints(5, 6)), NODE)
    component = resolve(space).component
    assert component[1] == component[3] == component[5]
    assert component[2] == component[6]
    assert component[1] != component[2]
    assert not resolve(space).frozen[1:].any()


def test_what_meets_a_fixed_axis_is_frozen_with_its_partners() -> None:
    space = _space(4)
    space.unite(Labels(_ints(1, 2)), Labels(_ints(3, 4)), NODE)
    space.unite(Labels(_ints(3, 4)), Labels(_ints(0, 4)), NODE)
    found = resolve(space)
    assert found.frozen.tolist() == [True, True, False, True, False]
    assert found.freezes[0][1].kind == "fixed axis"


def _choice(space: LabelSpace, *alternatives: tuple[list[int], list[int], list[int]]) -> None:
    space.choose(
        NODE,
        [
            Alternative(str(at), _ints(*left), _ints(*right), _ints(*frozen))
            for at, (left, right, frozen) in enumerate(alternatives)
        ],
    )


def _chosen(space: LabelSpace, attention: Attention = "heads") -> list[str | None]:
    return [None if a is None else a.name for _, a in resolve(space, attention).committed]


def test_the_alternative_with_more_atoms_wins() -> None:
    space = _space(8)
    _choice(space, ([1, 2], [3, 4], [5, 6, 7, 8]), ([5, 6, 7], [6, 7, 8], [1, 2, 3, 4]))
    _choice(space, ([1], [3], []), ([2, 4], [4, 2], []))
    assert _chosen(space)[0] == "0"


def test_equal_alternatives_go_by_their_order() -> None:
    space = _space(4)
    _choice(space, ([1], [2], [3, 4]), ([3], [4], [1, 2]))
    assert _chosen(space) == ["0"]
    assert resolve(space).frozen.tolist() == [True, False, False, True, True]


def test_a_frozen_alternative_is_not_taken() -> None:
    space = _space(4)
    _choice(space, ([1], [2], [3, 4]), ([3], [4], [1, 2]))
    space.freeze(_ints(2), WHY)
    assert _chosen(space) == ["1"]


def test_an_alternative_that_freezes_its_own_labels_is_none() -> None:
    space = _space(4)
    _choice(space, ([1], [2], [2]), ([3], [4], [1, 2]))
    assert _chosen(space) == ["1"]


def test_without_an_alternative_everything_is_frozen() -> None:
    space = _space(4)
    _choice(space, ([1], [2], [3, 4]), ([3], [4], [1, 2]))
    space.freeze(_ints(1, 4), WHY)
    found = resolve(space)
    assert found.committed[0][1] is None
    assert found.frozen.all()
    assert {reason.kind for _, reason in found.freezes} == {"test", "reshape"}


def test_forced_choices_come_first() -> None:
    """The second choice has one way left; it takes from the first one what that would have preferred."""
    space = _space(8)
    _choice(space, ([1, 2], [3, 4], [5, 6]), ([5], [6], [1, 2, 3, 4]))
    _choice(space, ([7], [8], [1, 2]), ([3], [3], [7]))
    space.freeze(_ints(3), WHY)
    assert _chosen(space) == ["0", "1"]
    assert resolve(space).frozen[[1, 2]].all()


def test_one_resolver_serves_every_wish() -> None:
    space = _space(7)
    _choice(space, ([1, 2], [3, 4], []), ([1], [5], [2, 3]))
    _choice(space, ([3, 4], [6, 7], []), ([3], [6], [4]))
    resolver = Resolver(space)
    for wanted in ({}, {0: "1"}, {1: "1"}, {0: "1", 1: "1"}, {}):
        one, other = resolver.resolve(wanted), resolve(space, wanted=wanted)
        assert one.component.tolist() == other.component.tolist()
        assert one.frozen.tolist() == other.frozen.tolist()
        assert [taken.name for _, taken in one.committed if taken] == [
            taken.name for _, taken in other.committed if taken
        ]


def test_a_single_alternative_holds_at_once() -> None:
    space = _space(4)
    _choice(space, ([1, 2], [3, 4], []))
    assert not space.choices
    assert resolve(space).component[1] == resolve(space).component[3]


def test_every_choice_is_committed_once() -> None:
    space = _space(40)
    for at in range(1, 36, 4):
        _choice(space, ([at], [at + 1], [at + 2]), ([at + 2], [at + 3], [at]))
    assert len(_chosen(space)) == 9


# attention ------------------------------------------------------------------------------------

HEADS, SIZE, TOKENS = 4, 6, 5


def _attention(heads: int = HEADS) -> ModelProto:
    parts = "\n".join(
        f"""{name}m = MatMul (x, w{name})
            {name}r = Reshape ({name}m, apart)
            {name}t = Transpose <perm = [{perm}]> ({name}r)"""
        for name, perm in (("q", "0, 2, 1, 3"), ("k", "0, 2, 3, 1"), ("v", "0, 2, 1, 3"))
    )
    text = f"""(float[2,{TOKENS},3] x) => (float[] y) {{
        {parts}
        s = MatMul (qt, kt)
        p = Softmax <axis = 3> (s)
        o = MatMul (p, vt)
        b = Transpose <perm = [0, 2, 1, 3]> (o)
        j = Reshape (b, together)
        y = MatMul (j, last)
    }}"""
    width = heads * SIZE
    weights = {"wq": (3, width), "wk": (3, width), "wv": (3, width), "last": (width, 4)}
    return model(text, weights, apart=[2, TOKENS, heads, SIZE], together=[2, TOKENS, width])


def test_whole_heads_are_the_default() -> None:
    (group,) = analyze(_attention()).groups
    assert (group.size, group.channels) == (HEADS, SIZE)
    members = {m.initializer: m for m in group.members}
    assert set(members) == {"wq", "wk", "wv", "last"}
    assert members["wq"].atoms.tolist() == np.repeat(np.arange(HEADS), SIZE).tolist()


def test_head_dimensions_if_asked_for() -> None:
    analysis = analyze(_attention(), attention="head-dim")
    assert sorted(group.size for group in analysis.groups) == [SIZE, SIZE]
    assert {frozenset(m.initializer for m in g.members) for g in analysis.groups} == {
        frozenset({"wq", "wk"}),
        frozenset({"wv", "last"}),
    }
    first = analysis.groups[0].members[0]
    assert first.atoms.tolist() == np.tile(np.arange(SIZE), HEADS).tolist()


@pytest.mark.parametrize("attention", ["heads", "head-dim"])
def test_attention_is_pruned_exactly(attention: Attention) -> None:
    outcome = check(analyze(_attention(), attention=attention))
    assert outcome.effect > 1e-3
    assert outcome.values["s"].shape == (2, 2 if attention == "heads" else HEADS, TOKENS, TOKENS)


@pytest.mark.parametrize("attention", ["heads", "head-dim"])
def test_a_single_head_leaves_its_dimensions(attention: Attention) -> None:
    analysis = analyze(_attention(1), attention=attention)
    assert sorted(group.size for group in analysis.groups) == [SIZE, SIZE]
