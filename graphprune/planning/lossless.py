# SPDX-License-Identifier: Apache-2.0
"""Planning without a budget: only what changes nothing goes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.cost.counting import count_costs
from graphprune.errors import UsageError
from graphprune.model.finite import check_finite
from graphprune.plan.check import group_plan
from graphprune.plan.schema import Budget, Plan, SolverRecord
from graphprune.plan.structure import outline, structure_digest
from graphprune.planning.constraints.constraints import Constraints
from graphprune.planning.make_plan import SolveOptions
from graphprune.planning.records import describe_model, recorded_choices
from graphprune.rewrites.redundant import find_lossless
from graphprune.rewrites.reference import make_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.budget import BudgetRequest

__all__ = ["SOLVER", "analysis_that_finds_more", "lossless_plan"]

SOLVER = "lossless"
"""What such a plan records as its solver."""


def analysis_that_finds_more(analysis: Analysis) -> Analysis:
    """Return the analysis in which more channels change nothing: this one, or that with conv groups alike by position.

    Dead outputs have the same ranks in all groups, copies that `widen` made have the same positions.
    """
    ways = [analysis, *([analysis.by_position()] if analysis.ranks else [])]
    return min(ways, key=lambda way: way.cost.flops(np.array([len(kept) for kept in find_lossless(way).kept])))


def lossless_plan(analysis: Analysis, requests: Sequence[BudgetRequest], options: SolveOptions) -> Plan:
    """Return the plan that removes all channels that change nothing; it may remove none.

    Raises
    ------
    UsageError
        If a budget, an alignment or a least width is asked for: what changes nothing is what the weights say.
    UnsupportedModelError
        If a weight holds NaN or infinity.
    """
    if requests:
        raise UsageError("a lossless plan has no budget", hint="give either --lossless or a budget")
    if options.round_to not in ("auto", 1) or options.min_keep > 1 or options.inherit != "keep" or options.allow_empty:
        raise UsageError(
            "a lossless plan removes whatever changes nothing, so it takes no --round-to, --min-keep, --inherit or "
            "--allow-empty"
        )
    if options.constraints != Constraints():
        raise UsageError("a lossless plan removes whatever changes nothing, so nothing can be constrained")
    check_finite(analysis.model, {member.initializer for group in analysis.groups for member in group.members})
    lossless = find_lossless(analysis)
    groups = tuple(
        replace(group_plan(group, kept.tolist()), merged=merged, folded=folded)
        for group, kept, merged, folded in zip(
            analysis.groups, lossless.kept, lossless.merged, lossless.folded, strict=True
        )
    )
    flops = analysis.cost.flops(analysis.cost.sizes)
    record = {
        "attention": analysis.attention,
        "approximate": analysis.approximate,
        "choices": recorded_choices(analysis),
        "structure": structure_digest(analysis.model.proto),
        "outline": outline(analysis.model.proto),
    }
    plan = Plan(
        model=describe_model(analysis),
        budget=Budget("flops", 1.0, flops, flops, flops),
        solver=SolverRecord(SOLVER, "", 0, record),
        groups=groups,
        layers=(),
        lossless=True,
    )
    reference = make_reference(analysis, plan, proven=True)
    costs = count_costs(analysis, [len(kept) for kept in lossless.kept], start=reference.start)
    return replace(plan, budget=costs.on(plan.budget), layers=costs.layers)
