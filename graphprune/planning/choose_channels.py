# SPDX-License-Identifier: Apache-2.0
"""Choosing channels: which atoms of every group stay at chosen widths, and what becomes of the weights of others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from graphprune.plan.schema import CHOSEN_BY
from graphprune.planning.adaptive_choice import adapt
from graphprune.planning.score_groups import score_groups
from graphprune.rewrites.merge import inherit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.array_types import Floats
    from graphprune.plan.schema import GroupPlan
    from graphprune.planning.choose_widths import ChosenWidths
    from graphprune.planning.planning_task import PlanningTask
    from graphprune.solvers.problem import Solution

__all__ = ["ChosenChannels", "choose_channels"]


@dataclass(frozen=True, eq=False)
class ChosenChannels:
    """Which channels stay.

    Attributes
    ----------
    groups : tuple of GroupPlan
    record : dict
        What a plan records of a contest of criteria and of inheritance, if there was any, and by what the channels of
        groups were chosen where it was not their saliency.
    """

    groups: tuple[GroupPlan, ...]
    record: dict[str, Any]


def choose_channels(task: PlanningTask, widths: ChosenWidths) -> ChosenChannels:
    """Choose the atoms that stay: those that the solver chose, the most salient ones, or those that win a contest.

    Raises
    ------
    UsageError
        If there is a contest, and a candidate is named twice, is no criterion, or there are no samples.
    """
    kept, contest = adapt(widths.problem, widths.solution, task.options.contest, partial(_scores_by, task))
    groups, inherited = inherit(task.analysis, kept, task.options.inherit)
    return ChosenChannels(groups, contest | inherited | _chosen_by(task, widths.solution, contest))


def _chosen_by(task: PlanningTask, solution: Solution, contest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the narrower groups whose channels the solver chose, by how it did; nothing where saliencies decided."""
    solver = task.options.solver
    if solution.kept is None or (contest and contest["adapt"]["chosen"] != solver):
        return {}
    ways: dict[str, list[str]] = {}
    said = solution.chosen_by or (f"the solver {solver}",) * len(solution.widths)
    for group, how, width in zip(task.analysis.groups, said, solution.widths.tolist(), strict=True):
        if how and width < group.size:
            ways.setdefault(how, []).append(group.id)
    return {CHOSEN_BY: ways}


def _scores_by(task: PlanningTask, criterion: str) -> tuple[Floats, ...]:
    """Return the scores of another criterion."""
    scores = score_groups(task.analysis, replace(task.options, criterion=criterion), task.evidence)
    return task.ranked(scores.per_group)
