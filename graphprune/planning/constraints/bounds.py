# SPDX-License-Identifier: Apache-2.0
"""Bounds: the widths that each group may take, of all that is said of all groups and of single ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import UsageError, quote
from graphprune.planning.constraints.constraints import Constraints
from graphprune.planning.constraints.group_names import Names
from graphprune.planning.constraints.kernel_blocks import kernel_steps
from graphprune.solvers.moves.levels import RULES, levels, rule_for

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.groups import Group

__all__ = ["Bounds", "WidthRules"]


@dataclass(frozen=True)
class WidthRules:
    """What is said about widths.

    Parameters
    ----------
    round_to : int or str
        Widths are multiples of this number of channels, or what a rule of `graphprune.solvers.moves.levels` allows.
    min_keep : int
        The fewest channels that a group keeps; a narrower group stays whole.
    constraints : Constraints
        What is said of single groups.
    """

    round_to: int | str = "auto"
    min_keep: int = 1
    constraints: Constraints = field(default_factory=Constraints)

    def loosened(self) -> Iterator[tuple[str, WidthRules]]:
        """Yield, for each rule that may keep widths up, its name and the rules without it."""
        limits = self.constraints
        if not isinstance(self.round_to, str) and self.round_to > 1:
            yield f"widths in multiples of {self.round_to} (--round-to)", replace(self, round_to=1)
        if self.min_keep > 1:
            yield f"at least {self.min_keep} channels a group (--min-keep)", replace(self, min_keep=1)
        if limits.max_prune < 1:
            what = f"at most {100 * limits.max_prune:g} % off a group (--max-prune)"
            yield what, replace(self, constraints=replace(limits, max_prune=1.0))
        if limits.only:
            yield "groups that --only does not name", replace(self, constraints=replace(limits, only=()))
        if limits.skip:
            yield "groups that --skip names", replace(self, constraints=replace(limits, skip=()))
        if limits.widths:
            yield "given widths (--widths)", replace(self, constraints=replace(limits, widths={}))


class Bounds:
    """The widths that the groups of a model may take.

    Parameters
    ----------
    analysis : Analysis
    rules : WidthRules

    Raises
    ------
    UsageError
        If a name or pattern fits no group, a given width is none that the group can take, or two rules for one group
        contradict each other.
    """

    def __init__(self, analysis: Analysis, rules: WidthRules) -> None:
        self._groups = analysis.groups
        self._rules = rules
        limits = rules.constraints
        names = Names(analysis) if limits.only or limits.skip or limits.widths else None
        self._fixed: dict[int, int] = _fixed(analysis.groups, names, limits) if names else {}
        rule = rule_for(rules.round_to)
        block = RULES[rule].block if isinstance(rule, str) and RULES[rule].whole_groups else 1
        self._steps: list[int] = kernel_steps(analysis, block).tolist()

    def levels(self, *, relaxed: bool = False) -> tuple[npt.NDArray[np.int64], ...]:
        """Return the widths that each group may take, in atoms, ascending (:mod:`graphprune.solvers.moves.levels`)."""
        return tuple(self._levels(number, group, relaxed=relaxed) for number, group in enumerate(self._groups))

    def _levels(self, number: int, group: Group, *, relaxed: bool) -> npt.NDArray[np.int64]:
        if number in self._fixed:
            return np.array([self._fixed[number]], dtype=np.int64)
        rules = self._rules
        most = int(Fraction(repr(float(rules.constraints.max_prune))) * group.size)  # atoms that may go
        fewest = max(min(group.size, math.ceil(rules.min_keep / group.channels)), group.size - most, 1)
        step = self._steps[number]
        return levels(group.size, group.channels, rules.round_to, minimum=fewest, relaxed=relaxed, step=step)


def _fixed(groups: tuple[Group, ...], names: Names, limits: Constraints) -> dict[int, int]:
    """Return the widths, in atoms, of groups that have one width only."""
    named = {number for pattern in limits.only for number in names.matching(pattern, "--only")}
    skipped = {number for pattern in limits.skip for number in names.matching(pattern, "--skip")}
    left_out = set(range(len(groups))) - named if limits.only else set()
    fixed = {number: groups[number].size for number in skipped | left_out}
    given: dict[int, str] = {}
    for name, width in limits.widths.items():
        number = names.single(name, "--widths")
        atoms, label = _atoms(groups[number], name, width), f"{groups[number].id} ({quote(groups[number].name)})"
        if number in given:
            raise UsageError(f"--widths names {label} twice: {quote(given[number])} and {quote(name)}")
        if fixed.get(number, atoms) != atoms:
            option = "--skip" if number in skipped else "--only"
            raise UsageError(f"--widths gives {label} {width} channels, but {option} keeps it whole")
        given[number], fixed[number] = name, atoms
    return fixed


def _atoms(group: Group, name: str, width: int) -> int:
    """Return a width in atoms."""
    full = group.size * group.channels
    if width > full:
        raise UsageError(f"--widths gives {quote(name)} {width} channels, but it has {full}")
    if width % group.channels:
        below = width - width % group.channels
        near = f"{below} or {below + group.channels}" if below else f"{group.channels}"
        raise UsageError(
            f"--widths gives {quote(name)} {width} channels, but they come {group.channels} at a time",
            hint=f"give {near}",
        )
    return width // group.channels
