# SPDX-License-Identifier: Apache-2.0
"""What a plan says of inherited channels, checked as far as that is possible without weights."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

from graphprune.errors import PlanError, quote

if TYPE_CHECKING:
    from graphprune.plan.schema import GroupPlan, Plan

__all__ = ["check_inherited"]

_EDITED = "`kept` was edited: remove what does not fit from `merged` and `folded` too, or solve again"


def check_inherited(plan: Plan) -> None:
    """Refuse merges and folded atoms that contradict what is kept.

    Raises
    ------
    PlanError
        If an atom that stays is merged or folded, an exemplar goes, an atom is named twice, a scale is not positive,
        or a plan that claims to be lossless scales what it merges.
    """
    for group in plan.groups:
        _check_merges(group, lossless=plan.lossless)
        _check_folded(group)
        if plan.lossless and len(group.kept) < group.size and not group.exact:
            _fail(group, "loses channels although it is not exact, so the plan cannot be lossless")


def _check_merges(group: GroupPlan, *, lossless: bool) -> None:
    kept = frozenset(group.kept)
    if any(first.removed >= second.removed for first, second in pairwise(group.merged)):
        _fail(group, "its merges are not sorted by what is removed, each atom once")
    for merge in group.merged:
        if merge.removed in kept:
            _fail(group, f"atom {merge.removed} is merged, but stays")
        if merge.exemplar not in kept:
            _fail(group, f"atom {merge.removed} is merged into atom {merge.exemplar}, which goes")
        if not merge.scale > 0:
            _fail(group, f"atom {merge.removed} is merged by a scale of {merge.scale:g}, which is not positive")
        if lossless and merge.scale != 1:
            _fail(group, f"atom {merge.removed} is merged by a scale of {merge.scale:g}, which is not lossless")


def _check_folded(group: GroupPlan) -> None:
    merged = {merge.removed for merge in group.merged}
    for atom in group.folded:
        if atom in group.kept:
            _fail(group, f"atom {atom} is folded, but stays")
        if atom in merged:
            _fail(group, f"atom {atom} is both folded and merged")


def _fail(group: GroupPlan, text: str) -> NoReturn:
    raise PlanError(f"group {quote(group.id)}: {text}", hint=_EDITED)
