# SPDX-License-Identifier: Apache-2.0
"""Every branch in which something is removed is compared, in as few runs as that takes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_models import model

import graphprune
from graphprune import BudgetRequest
from graphprune.surgery.slices import Kept
from graphprune.verification.branches import taken_together
from graphprune.verification.layout import lay_out
from graphprune.verification.oracle import build_oracle
from graphprune.verification.question import Question
from graphprune.verification.spec import Spec

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto

    from graphprune.analysis.analysis import Analysis

WEIGHTS = {"a": (8, 3, 1, 1), "b": (2, 8, 1, 1)}


def _network(body: str, last: str, **constants: list[int]) -> ModelProto:
    text = (
        f"(float[1, 3, 4, 4] x, bool c) => (float[1, 2, 4, 4] y) {{ h0 = Conv (x, a)\n{body}\ny = Conv ({last}, b) }}"
    )
    return model(text, WEIGHTS, **constants)


def _row(count: int) -> ModelProto:
    """Return a network with so many `If`s behind each other."""
    one = (
        "h{0} = If (c) <then_branch = t{0} () => (t{0}) {{ t{0} = Relu (h{1}) }}, "
        "else_branch = e{0} () => (e{0}) {{ e{0} = Neg (h{1}) }}>"
    )
    return _network("\n".join(one.format(at + 1, at) for at in range(count)), f"h{count}")


def _tree(depth: int, name: str = "h") -> str:
    """Return an `If` with further ones in both branches."""
    if not depth:
        return f"{name} = {'Relu' if name.endswith('t') else 'Neg'} (h0)"
    branches = ", ".join(
        f"{word}_branch = g{name}{word[0]} () => ({name}{word[0]}) {{ {_tree(depth - 1, name + word[0])} }}"
        for word in ("then", "else")
    )
    return f"{name} = If (c) <{branches}>"


def _told(proto: ModelProto, folder: Path) -> Spec:
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, [BudgetRequest("flops", 0.5)])
    kept = Kept(analysis, np.arange(8) < 4)
    lay_out(Question(analysis, graphprune.apply(analysis, plan), kept, build_oracle(analysis, kept.mask)), folder)
    return Spec.read(folder)


def test_branches_behind_each_other_are_taken_together(tmp_path: Path) -> None:
    spec = _told(_row(20), tmp_path)
    assert [len(group) for group in spec.branches] == [20, 20]
    assert len(spec.switches) == 40
    assert all(set(path) <= set(spec.switches) for group in spec.branches for path in group)


def test_branches_that_exclude_each_other_share_what_forces_them(tmp_path: Path) -> None:
    spec = _told(_network(_tree(3), "h"), tmp_path)
    assert [len(group) for group in spec.branches] == [1] * 8
    assert len({frozenset(path) for group in spec.branches for path in group}) == 8
    assert len(spec.switches) == 2 * 3


def test_ways_are_together_where_they_agree() -> None:
    first, second, third = {"p": True, "q": False}, {"p": True, "r": True}, {"q": True}
    assert taken_together([first, second, third]) == [[first, second], [third]]


@pytest.mark.parametrize("proto", [_row(5), _network(_tree(2), "h")], ids=["row", "tree"])
def test_all_of_them_are_verified(proto: ModelProto) -> None:
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, [BudgetRequest("flops", 0.5)])
    pruned = graphprune.apply(analysis, plan)
    assert graphprune.verify(analysis, pruned, plan).status == "verified"


def _calls(analysis: Analysis) -> int:
    """Return how many calls of Python functions it takes to put bodies back."""
    counted = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal counted
        counted += event == "call"

    sys.setprofile(count)
    try:
        analysis.flat.restore(analysis.flat.proto)
    finally:
        sys.setprofile(None)
    return counted


def test_bodies_are_put_back_in_one_pass() -> None:
    few, many = (_calls(graphprune.analyze(graphprune.load(_row(count)))) for count in (10, 40))
    assert many < 6 * few
