# SPDX-License-Identifier: Apache-2.0
"""Cases for rules of operators: a tiny model, the groups that must be found in it, and why the rest stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto
from oracle_check import analyze, check

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.groups import Group

__all__ = ["Case", "Stays", "assert_case", "assert_numbers", "assert_stays", "groups", "members", "reasons"]

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
    """

    id: str
    model: ModelProto
    kind: tuple[str, str]
    axis: tuple[str, int] = ("h", 1)
    groups: Mapping[str, tuple[int, str]] = field(default_factory=dict)

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


def assert_case(case: Case) -> None:
    """Assert that exactly the expected groups are found."""
    assert groups(analyze(case.model)) == _known(case.groups)


def assert_numbers(case: Case) -> None:
    """Assert that half the atoms, and all but one per group, can be removed and that this matters."""
    analysis = analyze(case.model)
    halved = check(analysis)
    assert halved.effect > 1e-3
    one = np.zeros_like(halved.keep)
    one[analysis.grouping.starts[1:] - 1] = True
    check(analysis, one, seed=1)


def assert_stays(case: Stays) -> None:
    """Assert that the axis stays for the right reason, that the rest does not, and that the rest can be pruned."""
    analysis = analyze(case.model)
    assert case.kind in reasons(analysis, *case.axis)
    assert groups(analysis) == _known(case.groups)
    if case.groups:
        assert check(analysis).effect > 1e-3
