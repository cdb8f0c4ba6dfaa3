# SPDX-License-Identifier: Apache-2.0
"""Reach: what keeps a model from costing less, where a budget asks for less than the narrowest widths cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import BudgetUnreachableError, quote
from graphprune.planning.constraints.bounds import Bounds, WidthRules

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.budget import BudgetRequest
    from graphprune.solvers.problem import Limit, Problem

__all__ = ["held_by", "unreachable"]

_REASONS = 3
_WORTH_NAMING = 0.005  # share of the FLOPs
_ADVICE = ": prune the model before"


def unreachable(
    analysis: Analysis, problem: Problem, requests: Sequence[BudgetRequest], rules: WidthRules
) -> BudgetUnreachableError:
    """Say what the narrowest widths cost, for the first limit that they do not meet."""
    costs = zip(problem.costs(problem.narrowest), problem.costs(problem.sizes), strict=True)
    pairs = zip(requests, problem.limits, costs, strict=True)
    request, missed, (smallest, before) = next(one for one in pairs if one[2][0] > one[1].limit)
    unit = " ns" if missed.metric == "latency" else ""
    asked = request.target if isinstance(request.target, str) else f"{request.target:g}"
    return BudgetUnreachableError(
        f"cannot reach {missed.metric} {asked} ({missed.limit:,} of {before:,}{unit}): "
        f"the smallest reachable is {_rounded_up(smallest / before):g} ({smallest:,}{unit})",
        hint=held_by(analysis, _holding(analysis, missed, smallest, rules)),
    )


def _holding(analysis: Analysis, missed: Limit, smallest: int, rules: WidthRules) -> list[str]:
    """Name the rules without which a cost could be smaller, and how small then; all of them where only all help."""
    before = missed.cost(analysis.cost.sizes)
    helping, names = [], []
    for name, loose in rules.loosened():
        least = missed.cost(_narrowest(analysis, loose))
        names.append(name)
        if least < smallest:
            helping.append(f"{name} ({_rounded_up(least / before):g} without)")
    if helping or missed.cost(_narrowest(analysis, WidthRules())) >= smallest:
        return helping
    return names


def _narrowest(analysis: Analysis, rules: WidthRules) -> npt.NDArray[np.int64]:
    return np.array([levels[0] for levels in Bounds(analysis, rules).levels(relaxed=True)], dtype=np.int64)


def _rounded_up(share: float) -> float:
    """Return a share to three digits or more, rounded up, so that it is itself reachable."""
    digits = max(3, 2 - math.floor(math.log10(share))) if share else 3
    return float(math.ceil(share * 10**digits) / 10**digits)


def held_by(analysis: Analysis, rules: Sequence[str] = ()) -> str:
    """Name what keeps the cost up: rules, and the largest reasons for freezing by the FLOPs of their layers."""
    total = max(1, analysis.cost.flops(analysis.cost.sizes))
    held = list(rules)
    held += [
        f"{entry.kind} ({100 * entry.flops / total:.0f} % of the FLOPs)"
        for entry in analysis.frozen[:_REASONS]
        if entry.flops >= total * _WORTH_NAMING
    ]
    shown = f"held by {', '.join(held)}; " if held else ""
    # What an optimiser or a quantiser made is better pruned before.
    advised = [entry for entry in analysis.frozen[:_REASONS] if _ADVICE in entry.text]
    shown += "".join(f"node {quote(entry.node)} {entry.text}; " for entry in advised[:1])
    return f"{shown}`graphprune inspect` shows what is frozen and why"
