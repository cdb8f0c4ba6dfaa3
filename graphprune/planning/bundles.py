# SPDX-License-Identifier: Apache-2.0
"""Bundles: groups that can only be emptied together, since what is left of one would feed nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.rewrites.vanish import Effects, find_effects

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis

__all__ = ["close", "effects_of", "find_bundles"]


def effects_of(analysis: Analysis, emptied: Iterable[int]) -> Effects:
    """Return the effects of emptying these groups and no others."""
    keep: npt.NDArray[np.bool_] = ~np.isin(analysis.grouping.group_of, list(emptied))
    return find_effects(analysis, keep)


def close(analysis: Analysis, emptied: Iterable[int]) -> tuple[frozenset[int], Effects]:
    """Return the smallest set of groups around some that can be emptied, and its effects; these say why, if none can.

    Groups are added whose layers would read nothing but constants, and groups that live in vanished layers alone.
    """
    closed = frozenset(emptied)
    inexact = {number for number, group in enumerate(analysis.groups) if not group.exact}
    while True:
        effects = effects_of(analysis, closed)
        more = effects.needs or (frozenset() if effects.why else _dead(analysis, effects) - closed)
        if closed & inexact:
            effects.why = effects.why or "its statistics run over what is kept"
        if effects.why or not more:
            return closed, effects
        closed |= more


def find_bundles(analysis: Analysis) -> dict[int, frozenset[int]]:
    """Return for each group that can be emptied all groups that are emptied with it.

    Complexity: O(groups * (values + labels)).
    """
    closures = {number: close(analysis, {number}) for number in range(len(analysis.groups))}
    return {number: closed for number, (closed, effects) in closures.items() if not effects.why}


def _dead(analysis: Analysis, effects: Effects) -> frozenset[int]:
    """Return the groups all of whose weights belong to nodes that vanish."""
    grouping = analysis.grouping
    alive = np.zeros(len(analysis.groups), dtype=np.bool_)
    for use in analysis.scope.space.uses:
        if use.node.index not in effects.vanished:
            for labels in use.axes:
                atoms = grouping.atom_of[labels.base]
                alive[grouping.group_of[atoms[atoms >= 0]]] = True
    return frozenset(np.flatnonzero(~alive).tolist())
