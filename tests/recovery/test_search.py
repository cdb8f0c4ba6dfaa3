# SPDX-License-Identifier: Apache-2.0
"""The search keeps its budget, and finds widths that are better than uniform ones."""

from __future__ import annotations

import numpy as np
import pytest
from recovery_models import block, samples

from graphprune.accuracy import recover
from graphprune.analysis import Analysis
from graphprune.api import apply, load, reconcile, solve, verify
from graphprune.calibrate.evaluation import compare
from graphprune.errors import BudgetUnreachableError
from graphprune.plan.budget import BudgetRequest
from graphprune.planning import SolveOptions
from graphprune.recovery.search import SearchOptions, search
from graphprune.recovery.sensitivity import SensitivityOptions


@pytest.mark.parametrize("stages", [1, 2])
def test_within_the_budget_and_better_than_uniform_widths(stages: int) -> None:
    proto = block(norm=True)
    analysis = Analysis(load(proto))
    uniform = solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(solver="uniform", criterion="l1", round_to=1))
    source, unseen = samples(proto, 192), samples(proto, 64, seed=5)
    allowed = [np.arange(1, group.size + 1, dtype=np.int64) for group in analysis.groups]
    found = search(
        analysis, uniform, source, allowed, SearchOptions(stages=stages, sensitivity=SensitivityOptions(measured=64))
    )
    assert found.plan.budget.after <= found.plan.budget.limit
    assert reconcile(analysis, found.plan).plan == found.plan
    assert verify(analysis, apply(analysis, found.plan), found.plan).status == "verified"
    assert {entry["stage"] for entry in found.trace} == set(range(stages))
    plain = recover(analysis, apply(analysis, uniform), uniform, source)
    errors = [compare(analysis.model, each.model, unseen).relative_error for each in (found.recovery, plain)]
    assert errors[0] < errors[1]


def test_a_budget_out_of_reach() -> None:
    proto = block(norm=True)
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(criterion="l1", round_to=1))
    allowed = [np.array([group.size], dtype=np.int64) for group in analysis.groups]
    with pytest.raises(BudgetUnreachableError):
        search(analysis, plan, samples(proto), allowed)
