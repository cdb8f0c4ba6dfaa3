# SPDX-License-Identifier: Apache-2.0
"""Votes: which classes want which channels, as a plan of `train --method white-box` recorded it."""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Group as Stack

from graphprune.errors import PlanError, UsageError, quote
from graphprune.report import text
from graphprune.report.tables import grid, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from graphprune.plan.schema import GroupPlan, Plan

__all__ = ["Votes", "read_votes", "votes_json", "votes_tables"]

_COLUMNS = 10
"""Classes that have a column each at most; of more, the first few are named."""


@dataclass(frozen=True, eq=False)
class Votes:
    """What classes voted for the channels of a group.

    Attributes
    ----------
    group : GroupPlan
    total : ndarray, shape (size,)
        Sum over the classes.
    wanted : ndarray of int, shape (size,)
        Classes whose vote is above their mean vote for all channels of all groups.
    most : ndarray of int, shape (size, few)
        Classes that want the channel most, the first one first.
    by_class, leaning : ndarray, shape (size, classes), optional
        All votes where the plan has them, and by how much each is above the mean vote of its class.
    classes : int
        How many there are.
    """

    group: GroupPlan
    total: npt.NDArray[np.float64]
    wanted: npt.NDArray[np.int64]
    most: npt.NDArray[np.int64]
    classes: int
    by_class: npt.NDArray[np.float64] | None = None
    leaning: npt.NDArray[np.float64] | None = None

    @property
    def means(self) -> npt.NDArray[np.float64]:
        """Mean vote of the classes, shape (size,)."""
        return self.total / self.classes


def read_votes(plan: Plan, pattern: str) -> list[Votes]:
    """Return the votes of the groups that a pattern names: ids, names, or weights, with * and ?.

    Raises
    ------
    UsageError
        If the plan records no votes, or no group of it is named so.
    PlanError
        If the record does not fit the groups.
    """
    entries = {entry.get("group"): entry for entry in plan.solver.trace if entry.get("stage") == "votes"}
    if not entries:
        raise UsageError(
            "the plan records no votes of classes", hint="plans of `graphprune train --method white-box` do"
        )
    chosen = [group for group in plan.groups if _is_named(group, pattern)]
    if not chosen:
        raise UsageError(f"no group of the plan goes by {quote(pattern)}", hint="`graphprune inspect PLAN` lists them")
    if not any(group.id in entries for group in chosen):
        raise UsageError(
            f"no group that goes by {quote(pattern)} was voted on",
            hint="something without weights reads its channels, or its samples cannot be told apart",
        )
    try:
        mean = _mean_votes(list(entries.values()))
        return [_votes(group, entries[group.id], mean) for group in chosen if group.id in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError("the votes that the plan records do not fit its groups") from error


def _is_named(group: GroupPlan, pattern: str) -> bool:
    names = (group.id, group.name, *(member.initializer for member in group.members))
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _mean_votes(entries: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64] | None:
    """Return the mean vote of every class for all channels; None where single votes are not recorded."""
    if not all("by_class" in entry for entry in entries):
        return None
    votes = np.concatenate([np.array(entry["by_class"], dtype=np.float64) for entry in entries])
    mean: npt.NDArray[np.float64] = votes.mean(axis=0)
    return mean


def _votes(group: GroupPlan, entry: Mapping[str, Any], mean: npt.NDArray[np.float64] | None) -> Votes:
    total = np.array(entry["sum"], dtype=np.float64)
    wanted, most = np.array(entry["wanted"], dtype=np.int64), np.array(entry["most"], dtype=np.int64)
    classes = int(entry["classes"])
    fits = len(total) == len(wanted) == len(most) == group.size and most.ndim == 2 and most.min(initial=0) >= 0
    if not fits or most.max(initial=0) >= classes:
        raise ValueError(group.id)
    if mean is None:
        return Votes(group, total, wanted, most, classes)
    by_class = np.array(entry["by_class"], dtype=np.float64)
    if by_class.shape != (group.size, classes):
        raise ValueError(group.id)
    return Votes(group, total, wanted, most, classes, by_class, by_class - mean)


def class_names(plan: Plan, classes: int) -> list[str]:
    """Return what the classes are called: their numbers, where the data had no names for them."""
    names: Sequence[object] = next(
        (entry.get("names", ()) for entry in plan.solver.trace if entry.get("stage") == "classes"), ()
    )
    return [str(name) for name in names] if len(names) == classes else [str(number) for number in range(classes)]


def votes_json(plan: Plan, ballots: Sequence[Votes]) -> dict[str, Any]:
    """Return the votes for machines."""
    return {
        "command": "inspect",
        "classes": class_names(plan, ballots[0].classes),
        "groups": [
            {
                "id": votes.group.id,
                "name": votes.group.name,
                "kept": list(votes.group.kept),
                "votes": votes.total.tolist(),
                "wanted_by": votes.wanted.tolist(),
                "most": votes.most.tolist(),
                "by_class": None if votes.by_class is None else votes.by_class.tolist(),
            }
            for votes in ballots
        ],
    }


def votes_tables(plan: Plan, ballots: Sequence[Votes]) -> RenderableType:
    """Return a table for each group: its channels, those with the highest votes first."""
    names = class_names(plan, ballots[0].classes)
    unit = _unit(
        np.concatenate([np.ravel(votes.means if votes.leaning is None else votes.leaning) for votes in ballots])
    )
    head = [
        ("vote", f"mean of the masks of {len(names)} classes; those of least magnitude go"),
        ("wanted by", "classes whose mask of the channel is above their mean mask of all channels"),
    ]
    if any(_columns(votes, names) for votes in ballots):
        head.append(("0, 1, ..." if names[0] == "0" else "classes", f"by how much it is above, in units of {unit:g}"))
    voted = {entry.get("group") for entry in plan.solver.trace if entry.get("stage") == "votes"}
    others = [text.name(group.id, 12) for group in plan.groups if group.id not in voted]
    if others:
        head.append(("not voted on", f"{', '.join(others)}: the mean vote of all others stood in"))
    return Stack(grid(head), *(_table(votes, names, unit) for votes in ballots))


def _unit(values: npt.NDArray[np.float64]) -> float:
    """Return the power of ten in which the largest difference has two digits before the point."""
    largest = float(np.abs(values - (values.mean() if len(values) else 0.0)).max(initial=0.0))
    return 10.0 ** (math.floor(math.log10(largest)) - 1) if largest > 0 else 1.0


def _columns(votes: Votes, names: Sequence[str]) -> list[str]:
    return [text.name(name, 8) for name in names] if votes.leaning is not None and len(names) <= _COLUMNS else []


def _table(votes: Votes, names: Sequence[str], unit: float) -> RenderableType:
    group, kept, columns = votes.group, set(votes.group.kept), _columns(votes, names)
    digits = min(8, max(2, -round(math.log10(unit))))
    right = ["channel", "vote", "wanted by", *columns]
    result = table("channel", "", "vote", "wanted by", *(columns or ["most by"]), right=right)
    result.title = f"{text.name(group.id, 12)}  {text.name(group.name)}  {len(kept)} of {group.size} stay"
    result.title_justify = "left"
    for channel in np.argsort(-np.abs(votes.means), kind="stable").tolist():
        said = [str(channel), "stays" if channel in kept else "goes", f"{votes.means[channel]:.{digits}f}"]
        if votes.leaning is not None and columns:
            more = [f"{round(value / unit):+d}" for value in votes.leaning[channel]]
        else:
            more = [", ".join(text.name(names[number], 20) for number in votes.most[channel])]
        result.add_row(*said, f"{votes.wanted[channel]} of {len(names)}", *more)
    return result
