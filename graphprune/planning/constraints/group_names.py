# SPDX-License-Identifier: Apache-2.0
"""Names that users have for coupled groups: their ids, and the nodes and weights that make or pass their channels."""

from __future__ import annotations

import difflib
import fnmatch
import re
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.groups import Member

__all__ = ["Names"]

_REGULAR = "re:"
_NEAREST, _NEAR = 3, 0.4
_LISTED = 5


class Names:
    """What the groups of a model are called.

    A group goes by its id, its name, and the nodes and weights that make its channels. What names none of these may
    name nodes whose outputs carry the channels, and weights with one value per channel. The order matters where layers
    normalise what they read: "denselayer2" means the channels that this layer makes, not those that its normalisation
    passes. Nodes and weights that only read channels name no group.

    Parameters
    ----------
    analysis : Analysis

    Complexity: O(nodes x labels on their outputs), once.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._makers: dict[str, set[int]] = {}
        self._carriers: dict[str, set[int]] = {}
        self._readers: dict[str, set[int]] = {}
        for number, group in enumerate(analysis.groups):
            _add(self._makers, (group.id, group.name), number)
            makers = [member for member in group.members if member.role == "out"] or group.members
            _add(self._makers, _names(makers), number)
            _add(self._carriers, (item.initializer for item in group.members if item.role == "per_channel"), number)
            _add(self._readers, _names(group.members), number)
        for node in analysis.graph.nodes:
            for number in self._carried(node.outputs):
                _add(self._carriers, (node.label,), number)

    def matching(self, pattern: str, option: str) -> set[int]:
        """Return the numbers of the groups that a pattern names.

        Parameters
        ----------
        pattern : str
            A name, a shell-style glob, or ``re:`` and a regular expression that is searched for.
        option : str
            What the pattern was given for, for messages: "--skip".

        Raises
        ------
        UsageError
            If it names no group, or is no regular expression.
        """
        matching = self._exactly(pattern)
        if not matching:
            matcher = _matcher(pattern, option)
            matching = _union(self._makers, matcher) or _union(self._carriers, matcher)
            if not matching:
                raise self._nothing(pattern, option, _union(self._readers, matcher))
        return set(matching)

    def single(self, name: str, option: str) -> int:
        """Return the number of the one group that goes by a name.

        Raises
        ------
        UsageError
            If none does, or several do.
        """
        matching = self._exactly(name)
        if not matching:
            raise self._nothing(name, option)
        if len(matching) > 1:
            raise UsageError(
                f"{option}: {quote(name)} names {len(matching)} groups: {self._listed(matching)}",
                hint="name one by its id",
            )
        return next(iter(matching))

    def _exactly(self, name: str) -> set[int]:
        return self._makers.get(name) or self._carriers.get(name) or set()

    def _carried(self, outputs: Iterable[str]) -> set[int]:
        """Return the groups whose atoms lie on an axis of the values."""
        grouping, carried = self._analysis.grouping, set[int]()
        for output in outputs:
            for labels in self._analysis.scope.values.get(output, ()):
                atoms = grouping.atom_of[labels.base]
                carried.update(np.unique(grouping.group_of[atoms[atoms >= 0]]).tolist())
        return carried

    def _nothing(self, pattern: str, option: str, alike: Iterable[int] = ()) -> UsageError:
        """Say that a pattern names no group: what it names instead, or what is called something similar."""
        readers = self._readers.get(pattern) or alike
        if readers:
            return UsageError(
                f"{option}: {quote(pattern)} makes no channels that may go, it only reads those of "
                f"{self._listed(readers)}",
                hint="name the group, or the layer that makes its channels",
            )
        near = difflib.get_close_matches(
            pattern.removeprefix(_REGULAR),
            {**self._makers, **self._carriers, **self._readers},
            n=_NEAREST,
            cutoff=_NEAR,
        )
        nearest = f"the nearest names are {', '.join(map(quote, near))}" if near else ""
        listed = "`graphprune inspect` lists the groups"
        return UsageError(
            f"{option}: {quote(pattern)} names no group", hint="; ".join(part for part in (nearest, listed) if part)
        )

    def _listed(self, numbers: Iterable[int]) -> str:
        names = [
            f"{group.id} ({quote(group.name)})" for group in map(self._analysis.groups.__getitem__, sorted(numbers))
        ]
        return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def _names(members: Iterable[Member]) -> list[str]:
    return [name for member in members for name in (member.initializer, member.node)]


def _add(known: dict[str, set[int]], names: Iterable[str], number: int) -> None:
    for name in names:
        known.setdefault(name, set()).add(number)


def _union(known: dict[str, set[int]], matcher: re.Pattern[str]) -> set[int]:
    return set[int]().union(*(numbers for name, numbers in known.items() if matcher.search(name)))


def _matcher(pattern: str, option: str) -> re.Pattern[str]:
    """Return a glob or a regular expression, compiled; to be searched for."""
    if not pattern.startswith(_REGULAR):
        return re.compile(rf"\A{fnmatch.translate(pattern)}")
    try:
        return re.compile(pattern.removeprefix(_REGULAR))
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{option}: {quote(pattern)} is not a regular expression: {error}") from None
