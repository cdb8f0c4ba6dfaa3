# SPDX-License-Identifier: Apache-2.0
"""The ground of a plan: the reweighted original from which its surgery, its oracle and its fidelity check start."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from graphprune.inheritance.merging import column_edits
from graphprune.inheritance.reweighing import Edits, Reweighted, reweigh

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.plan.schema import GroupPlan, Plan

__all__ = ["ground"]

_Inherited = tuple[tuple[object, ...], ...]
_known: WeakKeyDictionary[Analysis, tuple[_Inherited, Reweighted]] = WeakKeyDictionary()


def ground(analysis: Analysis, plan: Plan) -> Reweighted:
    """Return the reweighted original of a plan; that of the last plan is remembered.

    Raises
    ------
    PlanError
        If something is inherited that cannot be: see :func:`column_edits`.
    """
    key = tuple((group.kept, group.merged, group.folded) for group in plan.groups)
    if analysis not in _known or _known[analysis][0] != key:
        _known[analysis] = key, reweigh(analysis, _edits(analysis, plan.groups))
    return _known[analysis][1]


def _edits(analysis: Analysis, groups: tuple[GroupPlan, ...]) -> Edits:
    return Edits(column_edits(analysis, groups))
