# SPDX-License-Identifier: Apache-2.0
"""An attempt: one solver with one criterion under one set of budgets, as a row for a table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from graphprune.planning.make_plan import make_plan
from graphprune.report.trials import Trial
from graphprune.solvers.saliency import normalized
from graphprune.trials.meter import Measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Plan
    from graphprune.planning.make_plan import SolveOptions
    from graphprune.solvers.evidence import Evidence
    from graphprune.solvers.saliency import Scores
    from graphprune.trials.meter import Meter

__all__ = ["attempt", "described", "kept_share"]


def attempt(
    analysis: Analysis,
    requests: Sequence[BudgetRequest],
    options: SolveOptions,
    scores: Scores,
    meter: Meter | None = None,
    evidence: Evidence | None = None,
) -> Trial:
    """Solve once, with scores that are there already, and measure the result; the time is that of solving.

    Raises
    ------
    BudgetUnreachableError, NothingToPruneError
        If the budgets cannot be met.
    """
    started = time.perf_counter()
    if any(request.metric == "latency" for request in requests):  # planned and measured in turn
        from graphprune.export.runtime_stopwatch import stopwatch_for
        from graphprune.planning.tuning import make_measured_plan  # with onnxruntime

        plan = make_measured_plan(
            analysis, requests, options, evidence, stopwatch_for(options.runtime, options.threads)
        )
    else:
        plan = make_plan(analysis, requests, options, scores=scores, evidence=evidence)
    seconds = time.perf_counter() - started
    certificate, kept = plan.solver.certificate, kept_share(plan, scores)
    cost, after = analysis.cost, np.array([len(group.kept) for group in plan.groups], dtype=np.int64)
    return Trial(
        solver=options.solver,
        criterion=options.criterion,
        budget=described(requests),
        metric=plan.budget.metric,
        cost=(plan.budget.before, plan.budget.after if plan.budget.measured is None else plan.budget.measured),
        flops=(cost.flops(cost.sizes), cost.flops(after)),
        params=(cost.params(cost.sizes), cost.params(after)),
        widths=tuple((len(group.kept), group.size) for group in plan.groups),
        kept=kept,
        bound=None if certificate is None or certificate.gap >= 1 else kept / (1 - certificate.gap),
        seconds=seconds,
        **vars(meter.measure(plan) if meter else Measured()),
    )


def described(requests: Sequence[BudgetRequest]) -> str:
    """Return budgets in words: "flops 0.5, size 5MB"."""
    return ", ".join(
        f"{request.metric} {request.target if isinstance(request.target, str) else format(request.target, 'g')}"
        for request in requests
    )


def kept_share(plan: Plan, scores: Scores) -> float:
    """Return the saliency of the atoms that stay as a share of all, each group on the scale on which groups compete."""
    how = "none" if scores.comparable else "mean"
    scaled = [normalized(values, how) for values in scores.per_group]
    total = float(sum(values.sum() for values in scaled))
    kept = float(sum(values[list(group.kept)].sum() for values, group in zip(scaled, plan.groups, strict=True)))
    return kept / total if total else 1.0
