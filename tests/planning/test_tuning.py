# SPDX-License-Identifier: Apache-2.0
"""Planning for a latency, on a machine whose times are made up: what is predicted, measured and corrected."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from latency_cases import TEXT, WEIGHTS
from tiny_models import model

import graphprune
from graphprune import BudgetRequest, SolveOptions
from graphprune.cost.latency import measure, session_stopwatch
from graphprune.cost.latency.chunks import find_chunks
from graphprune.cost.latency.probe import sample
from graphprune.errors import BudgetUnreachableError
from graphprune.planning import tuning
from graphprune.planning.constraints.constraints import Constraints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from graphprune import Analysis, Plan
    from graphprune.cost.latency.probe import Sample

WHOLE = 1_000_000


BRANCHED = """(float[1,16,16,16] x) => (float[1,8,16,16] y) {
    a = Conv (x, stem)
    b = Conv (a, inner)
    c = Relu (b)
    d = Conv (c, outer)
    e = Add (a, d)
    f = Relu (e)
    y = Conv (f, head)
}"""
SHAPES = {"stem": (32, 16, 1, 1), "inner": (96, 32, 1, 1), "outer": (32, 96, 1, 1), "head": (8, 32, 1, 1)}


@pytest.fixture
def analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analysis:
    monkeypatch.setenv("GRAPHPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measure, "time_model", lambda *_: WHOLE)
    monkeypatch.setattr(session_stopwatch, "measure", lambda samples, _: {one.key: 500 + one.weight for one in samples})
    path = tmp_path / "net.onnx"
    path.write_bytes(model(TEXT, WEIGHTS).SerializeToString())
    return graphprune.analyze(graphprune.load(path))


def machine(monkeypatch: pytest.MonkeyPatch, share: Callable[[Plan], float]) -> list[Plan]:
    """Let a pruned model take a share of the original's time that depends on its plan; return the plans measured."""
    seen: list[Plan] = []

    def ratio(_analysis: Analysis, plan: Plan, _environment: object) -> float:
        seen.append(plan)
        return share(plan)

    monkeypatch.setattr(tuning, "_ratio", ratio)
    return seen


def predicted(plan: Plan) -> float:
    return plan.budget.after / plan.budget.before


def test_a_prediction_that_holds_is_measured_once(analysis: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = machine(monkeypatch, predicted)
    plan = graphprune.solve(analysis, BudgetRequest("latency", 0.5), SolveOptions(round_to=4))
    assert len(seen) == 1
    assert plan.budget.before == pytest.approx(WHOLE, abs=5)  # each layer rounds to a nanosecond
    assert plan.budget.after <= plan.budget.limit == plan.budget.before // 2
    assert plan.budget.measured == pytest.approx(plan.budget.after, abs=2)
    assert plan.solver.options["latency"]["rounds"] == 1


def test_where_pruning_saves_less_than_said_more_is_pruned(analysis: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = machine(monkeypatch, lambda plan: 0.2 + 0.8 * sum(x.flops_after for x in plan.layers) / 3_000_000)
    plan = graphprune.solve(analysis, BudgetRequest("latency", 0.5), SolveOptions(round_to=4))
    assert len(seen) > 1
    assert plan.budget.measured is not None
    assert plan.budget.measured <= 1.05 * plan.budget.limit


def test_a_correction_lies_between_one_too_small_and_one_too_large(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, predicted)
    plan = graphprune.solve(analysis, BudgetRequest("latency", 0.5), SolveOptions(round_to=1))

    def taking(share: float) -> Plan:
        return replace(plan, budget=replace(plan.budget, measured=int(share * plan.budget.limit)))

    said, saved = plan.budget.before - plan.budget.after, plan.budget.before - 1.2 * plan.budget.limit
    assert tuning._next_correction({1.0: taking(1.2)}) == pytest.approx(saved / said, rel=1e-3)
    assert tuning._next_correction({1.0: taking(1.2), 0.64: taking(0.7)}) == pytest.approx(0.8)
    further = {1.0: taking(1.2), 0.64: taking(0.7), 0.8: taking(1.1)}
    assert 0.64 < tuning._next_correction(further) < 0.8
    assert 0.8 < tuning._next_correction(further | {0.8: taking(0.9)}) < 1.0


def test_the_best_of_the_rounds_is_kept_where_the_machine_never_agrees(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = machine(monkeypatch, lambda _: 0.55)
    plan = graphprune.solve(analysis, BudgetRequest("latency", 0.5), SolveOptions(round_to=4))
    assert 1 < len(seen) <= tuning.ROUNDS
    assert plan.budget.measured == pytest.approx(0.55 * WHOLE, abs=5)


def test_the_same_request_gives_the_same_plan_from_the_cache(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = machine(monkeypatch, predicted)
    first = graphprune.solve(analysis, BudgetRequest("latency", 0.6))
    assert len(seen) == 1
    assert graphprune.solve(analysis, BudgetRequest("latency", 0.6)) == first
    assert len(seen) == 1


def test_an_amount_and_other_budgets_hold_at_once(analysis: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, predicted)
    requests = (BudgetRequest("latency", "0.8ms"), BudgetRequest("params", 0.4), BudgetRequest("memory", 0.9))
    plan = graphprune.solve(analysis, requests, SolveOptions(round_to=1))
    assert [budget.metric for budget in plan.budgets] == ["latency", "params", "memory"]
    assert all(budget.after <= budget.limit for budget in plan.budgets)
    assert plan.budget.limit == 800_000


def test_a_time_out_of_reach_is_refused(analysis: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, predicted)
    with pytest.raises(BudgetUnreachableError, match="cannot reach latency 1us"):
        graphprune.solve(analysis, BudgetRequest("latency", "1us"))


def test_a_plan_with_a_latency_is_applied_and_verified_anywhere(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, predicted)
    plan = graphprune.solve(analysis, BudgetRequest("latency", 0.5))
    path = graphprune.write_plan(plan, tmp_path / "plan.json")
    again = graphprune.read_plan(path)
    assert again == plan
    monkeypatch.setattr(session_stopwatch, "measure", None)  # nothing is measured again
    model_ = graphprune.load(tmp_path / "net.onnx")
    assert graphprune.verify(model_, graphprune.apply(model_, again), again).status == "verified"


def test_a_branch_goes_for_a_time_that_no_widths_reach(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = machine(monkeypatch, predicted)
    path = tmp_path / "branched.onnx"
    path.write_bytes(model(BRANCHED, SHAPES).SerializeToString())
    branched = graphprune.analyze(graphprune.load(path))
    (stream,) = (group.id for group in branched.groups if group.size == SHAPES["stem"][0])
    rules = Constraints(skip=(stream,))
    budget, options = BudgetRequest("latency", 0.35), SolveOptions(round_to=32, constraints=rules)
    with pytest.raises(BudgetUnreachableError):
        graphprune.solve(branched, budget, options)
    plan = graphprune.solve(branched, budget, replace(options, allow_empty=True))
    assert [len(group.kept) for group in plan.groups if group.id != stream] == [0]
    assert plan.budget.before == pytest.approx(WHOLE, abs=5)
    assert seen[-1].budget.after <= plan.budget.limit
    pruned = graphprune.apply(branched, plan)
    times = {one.key: 500 + one.weight for one in measured_samples(graphprune.analyze(pruned))}
    rate = WHOLE / sum(500 + one.weight for one in measured_samples(branched))
    assert plan.budget.after == pytest.approx(rate * sum(times.values()), abs=5)
    assert graphprune.verify(branched, pruned, plan).status == "verified"


def measured_samples(network: Analysis) -> list[Sample]:
    """Return what is measured of a network at full width, a layer each."""
    chunks = find_chunks(network)
    return [sample(network, chunk, tuple(length.full for length in chunk.features)) for chunk in chunks]
