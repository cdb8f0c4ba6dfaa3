# SPDX-License-Identifier: Apache-2.0
"""Tuning: plan for a latency, measure what was planned, and plan again until it is met.

Layers are measured one by one, a network runs as a whole, and the two differ by some percent. So a planned model is
made and timed against the original, in pairs. Where it misses the budget by more than `TOLERANCE`, what pruning is said
to save is corrected by what it saved in truth, and the widths are chosen again; once one plan was too slow and another
faster than asked, the correction lies between theirs. All times go through the cache: the
same request gives the same plan as long as the cache is there.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.cost.latency.bench import paired_timing
from graphprune.cost.latency.cache import Cache
from graphprune.cost.latency.measure import latency_cost, model_key
from graphprune.cost.latency.session_stopwatch import SessionStopwatch
from graphprune.errors import BudgetUnreachableError
from graphprune.model import write
from graphprune.model.files.scratch import scratch_folder
from graphprune.plan.keep_mask import keep_mask
from graphprune.planning.make_plan import make_plan
from graphprune.rewrites.reference import make_reference
from graphprune.solvers.moves.levels import RULES, machine_rule
from graphprune.surgery.prune import prune
from graphprune.verification.trial import try_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.cost.latency.stopwatch import Stopwatch
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Budget, Plan
    from graphprune.planning.make_plan import SolveOptions
    from graphprune.solvers.evidence import Evidence

__all__ = ["ROUNDS", "TOLERANCE", "make_measured_plan"]

TOLERANCE = 0.05
"""By which share a measured latency may miss its budget."""
ROUNDS = 5
"""How many plans are made and measured at most."""

_MILLIONTHS = 1_000_000
_CORRECTIONS = (0.25, 4.0)  # what is beyond them is no lack of precision
_MISSTEP = 0.02  # next to a correction that was tried already
_BINDING = 0.97  # share of its limit from which on it is the latency that keeps a plan narrow


def make_measured_plan(
    analysis: Analysis,
    requests: Sequence[BudgetRequest],
    options: SolveOptions,
    evidence: Evidence | None = None,
    stopwatch: Stopwatch | None = None,
) -> Plan:
    """Choose what to remove so that all budgets hold, the latency measured on the pruned model among them.

    The plan's latency budget says what was measured; it may miss the limit where no widths meet it within the rounds.

    Parameters
    ----------
    analysis : Analysis
    requests : sequence of BudgetRequest
    options : SolveOptions
    evidence : Evidence, optional
    stopwatch : Stopwatch, optional
        Where it is measured; by default in onnxruntime.

    Raises
    ------
    BudgetUnreachableError, NothingToPruneError, UnsupportedModelError, UsageError
        As :func:`graphprune.planning.make_plan.make_plan`, or if the runtime cannot run the model.
    UnsafeModelError
        If a run takes more memory or time than a model of this size may.
    """
    try_in_child(analysis)
    watch = stopwatch or SessionStopwatch(options.threads)
    cache = Cache(watch.environment)
    rule = options.width_rule
    block = RULES[rule if isinstance(rule, str) else machine_rule()].block
    layers = latency_cost(analysis, watch, cache, block)
    correction = 1.0
    plan = best = _measured(analysis, make_plan(analysis, requests, options, layers, evidence=evidence), watch, cache)
    tried = {correction: plan}
    while not plan.is_identity and _miss(plan) > TOLERANCE and len(tried) < ROUNDS:
        factor = _next_correction(tried)
        try:
            plan = make_plan(analysis, requests, options, layers.corrected(factor), evidence=evidence)
        except BudgetUnreachableError:
            break
        tried[factor] = plan = _measured(analysis, plan, watch, cache)
        if _miss(plan) < _miss(best):
            best, correction = plan, factor
    record = {
        "rounds": len(tried),
        "correction": round(correction, 4),
        "layers": layers.parts,
        "alone": layers.alone,
        **watch.environment.as_json(),
    }
    return replace(best, solver=replace(best.solver, options={**best.solver.options, "latency": record}))


def _latency(plan: Plan) -> Budget:
    return next(budget for budget in plan.budgets if budget.metric == "latency")


def _excess(plan: Plan) -> float:
    """Return by which share of the limit the measured latency exceeds it; negative where it stays below."""
    budget = _latency(plan)
    return (budget.measured or 0) / max(1, budget.limit) - 1


def _miss(plan: Plan) -> float:
    """Return by which share of the limit the measured latency exceeds it, or stays below it for no other reason."""
    budget, above = _latency(plan), _excess(plan)
    binding = budget.after >= _BINDING * budget.limit and not plan.is_identity
    return above if above > 0 else -above if binding else 0.0


def _next_correction(tried: Mapping[float, Plan]) -> float:
    """Return by what to correct what pruning saves: from one plan that is too slow and one that is faster than asked.

    Until there are both, it is what the last plan saved in truth.
    """
    slow = [factor for factor, plan in tried.items() if _excess(plan) > 0]
    fast = [factor for factor in tried if factor not in slow]
    if slow and fast:
        between = math.sqrt(min(slow) * max(fast))
        return between if between not in tried else between * (1 - _MISSTEP)
    last = list(tried)[-1]
    return last * _saved(tried[last])


def _saved(plan: Plan) -> float:
    """Return what pruning saved, by what it was said to save."""
    budget = _latency(plan)
    said, saved = budget.before - budget.after, budget.before - (budget.measured or 0)
    return float(np.clip(saved / max(1, said), *_CORRECTIONS))


def _measured(analysis: Analysis, plan: Plan, stopwatch: Stopwatch, cache: Cache) -> Plan:
    """Return a plan that says what it was measured to take."""
    kept = json.dumps([group.kept for group in plan.groups]).encode()
    key = f"{model_key(analysis)}/{hashlib.sha256(kept).hexdigest()[:32]}"
    if plan.is_identity:
        ratio = _MILLIONTHS
    elif key in cache.ratios:
        ratio = cache.ratios[key]
    else:
        ratio = cache.ratios[key] = max(1, round(_MILLIONTHS * _ratio(analysis, plan, stopwatch)))
        cache.save()
    first, *further = (
        replace(budget, measured=budget.before * ratio // _MILLIONTHS) if budget.metric == "latency" else budget
        for budget in plan.budgets
    )
    return replace(plan, budget=first, further=tuple(further))


def _ratio(analysis: Analysis, plan: Plan, stopwatch: Stopwatch) -> float:
    """Prune as planned, and time the result against the original."""
    start = make_reference(analysis, plan).start
    pruned = analysis.model.replaced(prune(start, keep_mask(analysis, plan)))
    original = analysis.model.path or analysis.model.proto.SerializeToString()
    with scratch_folder() as folder:
        path = write.save(pruned, folder / "pruned.onnx")
        return paired_timing(original, path, analysis.input_shapes, stopwatch).ratio
