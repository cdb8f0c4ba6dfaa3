# SPDX-License-Identifier: Apache-2.0
"""Constraints: what may become of the widths of single groups, besides the budget of the whole network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphprune.errors import UsageError, quote
from graphprune.plan.schema import digest

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan

__all__ = ["Constraints"]


@dataclass(frozen=True)
class Constraints:
    """What may become of single groups.

    Patterns are names, shell-style globs or, after ``re:``, regular expressions. They are compared with the ids and
    names of groups and with the nodes and weights that make a group's channels; a pattern that fits none of them, with
    the nodes whose outputs carry the channels and the weights that have one value for each.

    Parameters
    ----------
    max_prune : float
        The largest share of its channels that a group may lose, ``0 < max_prune <= 1``.
    only : tuple of str
        Patterns: groups that none of them names stay whole. Without patterns all may shrink.
    skip : tuple of str
        Patterns: groups that one of them names stay whole.
    widths : mapping of str to int
        By id or name of a group, by node or weight, the width in channels that it gets. What is said of a single group
        comes before what is said of all: rounding, fewest channels, largest share.
    start : Plan, optional
        A plan of the same model to start from: what it removes goes first, and its widths are filled up or
        narrowed to the budget.

    Raises
    ------
    UsageError
        If a value has no meaning.
    """

    max_prune: float = 1.0
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    start: Plan | None = None

    def __post_init__(self) -> None:
        if isinstance(self.max_prune, bool) or not 0 < self.max_prune <= 1:
            raise UsageError(
                f"a group cannot lose at most {self.max_prune!r} of its channels",
                hint="give a share above 0 and up to 1, e.g. 0.5",
            )
        given: tuple[object, object] = (self.only, self.skip)  # callers of the Python API may pass anything
        for patterns in given:
            if isinstance(patterns, str):
                raise UsageError(f"patterns come in a tuple, got the text {quote(patterns)}")
        for name, width in self.widths.items():
            if type(width) is not int or width < 1:
                raise UsageError(f"the width of {quote(name)} is {width!r}, but must be a positive whole number")

    def record(self) -> dict[str, Any]:
        """Return what differs from no constraint at all, JSON-able; a plan stands for its digest."""
        given = {
            "max_prune": self.max_prune if self.max_prune < 1 else None,
            "only": list(self.only),
            "skip": list(self.skip),
            "widths": dict(sorted(self.widths.items())),
            "from": digest(self.start) if self.start else None,
        }
        return {key: value for key, value in given.items() if value}
