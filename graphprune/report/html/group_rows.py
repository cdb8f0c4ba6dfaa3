# SPDX-License-Identifier: Apache-2.0
"""What a report shows of coupled groups: which channels stay, by what they were chosen, and their saliencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.report import text
from graphprune.solvers.saliency import select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.plan.schema import GroupPlan, Plan
    from graphprune.report.chosen_by import ChannelChoice
    from graphprune.solvers.saliency import Scores

__all__ = ["LONGEST_NAME", "deciding_line", "group_rows", "saliency_rows"]

LONGEST_NAME = 200
"""Letters of a name that a page shows; it wraps them."""

_MOST_SALIENCIES = 40_000
"""Channels of which a page of less than 3 MB shows the saliencies."""

_MOST_MEMBERS = 10_000
"""Tensors of groups that such a page names, all groups together."""


def group_rows(plan: Plan, choice: ChannelChoice) -> list[dict[str, Any]]:
    """Return the groups in the order of the plan, with as many of their members as a page has room for."""
    rows: list[dict[str, Any]] = []
    room = _MOST_MEMBERS
    for group in plan.groups:
        rows.append(_group(group, choice, room))
        room -= len(rows[-1]["members"])
    return rows


def _group(group: GroupPlan, choice: ChannelChoice, room: int) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": text.name(group.name, LONGEST_NAME),
        "size": group.size,
        "kept": len(group.kept),
        "by": text.name(choice.ways.get(group.id, ""), 80),
        "exact": group.exact,
        "channels": _ranges(group.kept),
        "members": [
            f"{text.name(member.initializer, LONGEST_NAME)}, axis {member.axis} ({member.role})"
            for member in group.members[:room]
        ],
        "more": max(0, len(group.members) - room),
        "merged": len(group.merged),
        "folded": len(group.folded),
    }


def _ranges(kept: Sequence[int]) -> list[list[int]]:
    """Return which atoms stay as pairs of the first one and how many: far shorter than their numbers."""
    atoms = np.asarray(kept, dtype=np.int64)
    if not len(atoms):
        return []
    starts = np.flatnonzero(np.diff(atoms, prepend=atoms[0] - 2) != 1)
    counts = np.diff(starts, append=len(atoms))
    return [[first, count] for first, count in zip(atoms[starts].tolist(), counts.tolist(), strict=True)]


def deciding_line(shown: Sequence[dict[str, Any]], choice: ChannelChoice) -> str:
    """Say whose saliencies are shown, and what decided which channels stay."""
    chosen = [row for row in shown if 0 < sum(row["stays"]) < len(row["stays"])]
    decided = sum(not row["by"] for row in chosen)
    head = f"What the criterion {text.name(choice.criterion, 40)} says of the channels of one group."
    line = "a line shows the lowest saliency that stays"
    if decided == len(chosen):
        return f"{head} The most salient ones stay; {line}."
    if not decided:
        return f"{head} It did not decide which of them stay: channels were chosen by {choice.line}."
    return (
        f"{head} It decided in {decided} of {text.plural(len(chosen), 'narrower group')}, where {line}; "
        f"channels were chosen by {choice.line}."
    )


def saliency_rows(plan: Plan, scores: Scores, choice: ChannelChoice) -> list[dict[str, Any]]:
    """Return the atoms of as many groups as a page has room for, in the order of their saliency."""
    rows: list[dict[str, Any]] = []
    room = _MOST_SALIENCIES
    for group, values in zip(plan.groups, scores.per_group, strict=True):
        if group.size > room:
            continue
        room -= group.size
        stays = np.zeros(group.size, dtype=np.int64)
        stays[list(group.kept)] = 1
        mean = float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
        scaled = np.nan_to_num(values / mean if mean else values)
        order = np.argsort(-scaled, kind="stable")
        decided = choice.by_saliency(group.id) and np.array_equal(select(values, len(group.kept)), group.kept)
        rows.append(
            {
                "group": f"{group.id} {text.name(group.name, 60)}",
                "atom": order.tolist(),
                "saliency": [float(f"{value:.4g}") for value in scaled[order]],
                "stays": stays[order].tolist(),
                "by": "" if decided else text.name(choice.ways.get(group.id, "all or none of them stay"), 60),
            }
        )
    return rows
