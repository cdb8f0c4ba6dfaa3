# SPDX-License-Identifier: Apache-2.0
"""The reference of a plan: the reweighted, shortened original from which surgery, oracle and fidelity check start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import PlanError, UnsupportedModelError, quote
from graphprune.plan.keep_mask import keep_mask
from graphprune.rewrites.fold import fold_edits
from graphprune.rewrites.merge import column_changes, column_edits
from graphprune.rewrites.ranges import find_ranges
from graphprune.rewrites.redundant import check_lossless
from graphprune.rewrites.reweigh import WeightEdits, reweigh
from graphprune.rewrites.shorten import Shortened, shorten
from graphprune.rewrites.vanish import find_effects

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.schema import Plan

__all__ = ["Reference", "make_reference"]


@dataclass(frozen=True, eq=False)
class Reference:
    """Where the surgery of a plan starts.

    Attributes
    ----------
    original : Analysis
    reweighted : Analysis
        Of the original with inherited weights; its masked form is what the pruned model must equal.
    shortened : Shortened or None
        The same without what vanishes with emptied groups, if there are any.
    """

    original: Analysis
    reweighted: Analysis
    shortened: Shortened | None = None

    @property
    def start(self) -> Analysis:
        """Of the same without what vanishes with emptied groups; what is cut."""
        return self.shortened.analysis if self.shortened else self.reweighted


def make_reference(analysis: Analysis, plan: Plan, *, proven: bool = False) -> Reference:
    """Return where the surgery of a plan starts.

    Parameters
    ----------
    analysis : Analysis
        Of the original.
    plan : Plan
    proven : bool
        It is known that the plan is lossless, if it claims so.

    Raises
    ------
    PlanError
        If something is inherited that cannot be (see `merging` and `folding`), the plan claims to be lossless and is
        not, or a group is emptied that cannot be.
    """
    if plan.lossless and not proven:
        check_lossless(analysis, plan)
    reweighted = reweigh(analysis, _edits(analysis, plan)).analysis
    return Reference(analysis, reweighted, _shortened(reweighted, plan))


def _shortened(analysis: Analysis, plan: Plan) -> Shortened | None:
    """Return the graph without what vanishes with emptied groups."""
    empty = [group for group in plan.groups if not group.kept]
    if not empty:
        return None
    keep = keep_mask(analysis, plan)
    effects = find_effects(analysis, keep)
    hint = "at least one atom of a group stays, unless all that depends on it can go"
    if effects.needs:
        more = ", ".join(quote(plan.groups[number].id) for number in sorted(effects.needs))
        raise PlanError(f"group {quote(empty[0].id)} can only be emptied together with {more}", hint=hint)
    if effects.why or not all(group.exact for group in empty):
        why = effects.why or "it is not exact"
        raise PlanError(f"group {quote(empty[0].id)} cannot keep nothing: {why}", hint=hint)
    try:
        return shorten(analysis, keep, effects)
    except UnsupportedModelError as error:
        raise PlanError(f"group {quote(empty[0].id)} cannot keep nothing: {error.message}", hint=hint) from error


def _edits(analysis: Analysis, plan: Plan) -> WeightEdits:
    groups = plan.groups
    # What a lossless plan merges was checked with the channels that stay; the others need not be equal.
    merges = tuple(group.merged for group in groups)
    columns = column_changes(analysis, merges) if plan.lossless else column_edits(analysis, groups)
    if not any(group.folded for group in groups):
        return WeightEdits(columns)
    merged = reweigh(analysis, WeightEdits(columns)).analysis
    gone = np.zeros(len(analysis.grouping.group_of), dtype=np.bool_)
    for start, group in zip(analysis.grouping.starts, groups, strict=False):
        gone[[int(start) + merge.removed for merge in group.merged]] = True
    return WeightEdits(columns, {**fold_edits(merged, groups, find_ranges(merged, gone))})
