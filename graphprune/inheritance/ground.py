# SPDX-License-Identifier: Apache-2.0
"""The ground of a plan: the reweighted original from which its surgery, its oracle and its fidelity check start."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from graphprune.inheritance.folding import fold_edits
from graphprune.inheritance.lossless import check_lossless
from graphprune.inheritance.merging import column_changes, column_edits
from graphprune.inheritance.ranges import find_ranges
from graphprune.inheritance.reweighing import Edits, Reweighted, reweigh

if TYPE_CHECKING:
    from graphprune.analysis import Analysis
    from graphprune.plan.schema import Plan

__all__ = ["ground"]

_Inherited = tuple[object, ...]
_known: WeakKeyDictionary[Analysis, tuple[_Inherited, Reweighted]] = WeakKeyDictionary()


def ground(analysis: Analysis, plan: Plan) -> Reweighted:
    """Return the reweighted original of a plan; that of the last plan is remembered.

    Raises
    ------
    PlanError
        If something is inherited that cannot be (see `merging` and `folding`), or the plan claims to be lossless and
        is not.
    """
    key = (plan.lossless, *((group.kept, group.merged, group.folded) for group in plan.groups))
    if analysis not in _known or _known[analysis][0] != key:
        if plan.lossless:
            check_lossless(analysis, plan)
        _known[analysis] = key, reweigh(analysis, _edits(analysis, plan))
    return _known[analysis][1]


def _edits(analysis: Analysis, plan: Plan) -> Edits:
    groups = plan.groups
    # What a lossless plan merges was checked with the channels that stay; the others need not be equal.
    merges = tuple(group.merged for group in groups)
    columns = column_changes(analysis, merges) if plan.lossless else column_edits(analysis, groups)
    if not any(group.folded for group in groups):
        return Edits(columns)
    merged = reweigh(analysis, Edits(columns)).analysis
    gone = np.zeros(len(analysis.grouping.group_of), dtype=np.bool_)
    for start, group in zip(analysis.grouping.starts, groups, strict=False):
        gone[[int(start) + merge.removed for merge in group.merged]] = True
    return Edits(columns, {**fold_edits(merged, groups, find_ranges(merged, gone))})
