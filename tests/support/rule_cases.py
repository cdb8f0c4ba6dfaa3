# SPDX-License-Identifier: Apache-2.0
"""Cases for rules of operators: a tiny model, the groups that must be found in it, and why the rest stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import analyze, check

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.groups import Group
from graphprune.verification.jumps import DISCRETE

__all__ = ["BOTH", "Case", "Stays", "assert_groups", "groups", "members", "reasons", "rule_tests"]

Test = Callable[..., None]

BOTH = "first.0 out, last.1 in"
"""Members of the channels between the two convolutions of `tiny_models.chain`."""


def _known(expected: Mapping[str, tuple[int, str]]) -> dict[str, tuple[int, frozenset[str]]]:
    return {name: (size, frozenset(text.split(", "))) for name, (size, text) in expected.items()}


@dataclass(frozen=True)
class Case:
    """A model whose groups are known, and that can be pruned to random halves.

    Attributes
    ----------
    groups : dict of str to (int, str)
        By name of the group: its size, and its members as in "first.0 out, last.1 in" (tensor, axis, role).
    """

    id: str
    model: ModelProto
    groups: Mapping[str, tuple[int, str]] = field(default_factory=lambda: {"h": (8, BOTH)})

    def __str__(self) -> str:
        """Return the id of the test."""
        return self.id


@dataclass(frozen=True)
class Stays:
    """A model in which an axis stays.

    Attributes
    ----------
    kind : str
        Kind of the reason, and the node that must be named.
    axis : tuple of (str, int)
        The value and its axis that stay.
    groups
        The groups that are found all the same.
    runs
        Whether onnxruntime computes the model; what it does not compute is analysed only.
    """

    id: str
    model: ModelProto
    kind: tuple[str, str]
    axis: tuple[str, int] = ("h", 1)
    groups: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    runs: bool = True

    def __str__(self) -> str:
        """Return the id of the test."""
        return self.id


def members(group: Group) -> frozenset[str]:
    """Return the members of a group as "tensor.axis role"."""
    return frozenset(f"{member.initializer}.{member.axis} {member.role}" for member in group.members)


def groups(analysis: Analysis) -> dict[str, tuple[int, frozenset[str]]]:
    """Return size and members of all groups, by name; the second of one name gets a plus sign."""
    found: dict[str, tuple[int, frozenset[str]]] = {}
    for group in analysis.groups:
        name = group.name
        while name in found:
            name += "+"
        found[name] = group.size, members(group)
    return found


def reasons(analysis: Analysis, value: str, axis: int) -> set[tuple[str, str]]:
    """Return kind and node of everything that freezes some slice of an axis."""
    labels = np.unique(analysis.scope.values[value][axis].base)
    components = analysis.resolution.component[labels[labels != 0]]
    return {
        (reason.kind, reason.node.label if reason.node else "")
        for frozen, reason in analysis.resolution.freezes
        if np.isin(analysis.resolution.component[frozen], components).any()
    }


def assert_groups(case: Case) -> None:
    """Assert that exactly the expected groups are found."""
    assert groups(analyze(case.model)) == _known(case.groups)


def _assert_numbers(case: Case) -> None:
    """Assert that half the atoms, and all but one per group, can be removed and that this matters."""
    analysis = analyze(case.model)
    halved = check(analysis)
    if any(node.op_type in DISCRETE for node in case.model.graph.node):
        return  # rounding may change what is behind these operators: only what is in front of them was compared
    assert halved.effect > 1e-3
    one = np.zeros_like(halved.keep)
    one[analysis.grouping.starts[1:] - 1] = True
    check(analysis, one, seed=1)


def _assert_stays(case: Stays) -> None:
    """Assert that the axis stays for the right reason, that the rest does not, and that the rest can be pruned."""
    analysis = analyze(case.model)
    assert case.kind in reasons(analysis, *case.axis)
    assert groups(analysis) == _known(case.groups)
    if case.groups and case.runs:
        assert check(analysis).effect > 1e-3


def rule_tests(cases: Sequence[Case], stays: Sequence[Stays]) -> tuple[Test, Test, Test]:
    """Return the tests that every rule passes, each parametrised with a rule's cases.

    Returns
    -------
    test_keeps : callable
        Finds exactly the groups of a case.
    test_numbers : callable
        Prunes a case, and compares it with the masked original.
    test_freezes : callable
        Finds why an axis stays, and that the rest of the model is free.

    Examples
    --------
    ::

        test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)
    """

    @pytest.mark.parametrize("case", cases, ids=str)
    def test_keeps(case: Case) -> None:
        assert_groups(case)

    @pytest.mark.parametrize("case", cases, ids=str)
    def test_numbers(case: Case) -> None:
        _assert_numbers(case)

    @pytest.mark.parametrize("case", stays, ids=str)
    def test_freezes(case: Stays) -> None:
        _assert_stays(case)

    return test_keeps, test_numbers, test_freezes
