# SPDX-License-Identifier: Apache-2.0
"""Stage-wise: where a network is divided, what a stage errs, and which widths are chosen."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import ModelProto
from pruning_cases import KINDS, QUICK, labelled, trained
from tiny_models import model

import graphprune
from graphprune.errors import UsageError
from graphprune.solvers.training.stage_wise import StageWise, stage_error
from graphprune.training.preparation import prepare
from graphprune.training.pruning.chain_knapsack import Candidate, combine
from graphprune.training.pruning.run import Run
from graphprune.training.pruning.running_network import begin
from graphprune.training.pruning.stage_costs import find_stages
from graphprune.training.pruning.train import TrainOptions

STAGED = """(float[n,3,8,8] image) => (float[n,4] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w1, b1)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (d, w2, b2)
    f = Relu (e)
    g = Conv <pads = [1, 1, 1, 1]> (f, w3, b3)
    h = Relu (g)
    i = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (h, w4, b4)
    j = Relu (i)
    k = Flatten (j)
    scores = Gemm <transB = 1> (k, w5, b5)
}"""


def staged() -> ModelProto:
    shapes = {f"w{i}": (8, 3 if i == 0 else 8, 3, 3) for i in range(5)} | {"w5": (4, 32), "b5": (4,)}
    proto = model(STAGED, shapes | {f"b{i}": (8,) for i in range(5)})
    for tensor in proto.graph.initializer:
        value = np.frombuffer(tensor.raw_data, dtype=np.float32) * 0.2
        tensor.raw_data = value.astype(np.float32).tobytes()
    return proto


def test_stages_begin_where_maps_get_smaller() -> None:
    analysis = graphprune.analyze(graphprune.load(staged()))
    stages = find_stages(analysis)
    assert [stage.layers for stage in stages] == [(0, 1), (2, 3), (4, 5)]
    assert [stage.groups for stage in stages] == [(0, 1), (2, 3), (4,)]
    assert [stage.crossing for stage in stages] == [(1,), (3,), ()]
    sizes = analysis.cost.sizes
    assert sum(stage.cost(analysis, sizes) for stage in stages) == analysis.cost.flops(sizes)


def test_without_resolutions_stages_cost_about_the_same() -> None:
    analysis = graphprune.analyze(graphprune.load(KINDS["transformer"]()))
    stages = find_stages(analysis, 2)
    assert sorted(number for stage in stages for number in stage.groups) == list(range(len(analysis.groups)))
    assert sum(len(stage.layers) for stage in stages) == len(analysis.layers)


def course_of(method: StageWise) -> Run:
    found = graphprune.load(staged())
    data = labelled()
    task, _, _ = prepare(found, data, None, replace(QUICK, unfold=False))
    budget = (graphprune.BudgetRequest("flops", 0.5),)
    solving = graphprune.SolveOptions(solver="global", round_to=1)
    run = Run(begin(task.net, graphprune.analyze(found)), replace(task, hook=method), data, budget, solving, 9)
    method.begin_run(run)
    return run


def test_full_width_errs_nowhere_and_narrow_stages_err_alone() -> None:
    method = StageWise()
    run = course_of(method)
    for search in method.judged():
        full = tuple(run.groups[number].size for number in search.stage.groups)
        losses = {candidate.widths: candidate.loss for candidate in search.candidates}
        assert losses[full] == pytest.approx(0.0, abs=1e-9)
        assert max(losses.values()) > 1e-3
    stage = method._stages[1]
    with method.narrowed(stage, [2, 2]):
        shut = {name for name, gate in method._gates.items() if bool((gate.value == 0).any())}
    assert shut == {run.groups[number].id for number in stage.groups}
    assert all(bool((gate.value == 1).all()) for gate in method._gates.values())


def test_the_error_is_that_of_the_pruned_network() -> None:
    """What a narrow stage errs is measured where the next stage reads, with channels that are gone counted as zero."""
    method = StageWise()
    run = course_of(method)
    feeds = {"image": torch.randn(6, 3, 8, 8)}
    net = run.running.net
    net.module.eval()
    with torch.no_grad():
        net.run(feeds)
        full = method._taps[0].value.clone()  # type: ignore[union-attr]
        error = method._error(0, [4, 4], feeds, full, {})
        stored = net.stored
        x = torch.relu(torch.conv2d(feeds["image"], stored["w0"], stored["b0"], padding=1))
        keep = [torch.zeros(8, 1, 1) for _ in range(2)]
        for number in range(2):
            keep[number][method._order[number][:4].copy()] = 1.0
        y = torch.relu(torch.conv2d(x * keep[0], stored["w1"], stored["b1"], padding=1)) * keep[1]
    assert float(error) == pytest.approx(float(stage_error(y, full)), rel=1e-4)


def toy(random: np.random.Generator) -> list[list[Candidate]]:
    return [
        [Candidate((int(w),), float(loss)) for w, loss in zip(range(1, 5), sorted(random.random(4))[::-1], strict=True)]
        for _ in range(3)
    ]


def cost(number: int, state: tuple[int, ...], candidate: Candidate) -> tuple[int, tuple[int, ...]]:
    before = state[0] if state else 3
    return before * candidate.widths[0] * (number + 1), candidate.widths


@pytest.mark.parametrize("seed", range(10))
def test_the_knapsack_is_brute_force(seed: int) -> None:
    stages = toy(np.random.default_rng(seed))
    last = np.inf
    for budget in (8, 20, 45, 100):
        best = np.inf
        for choice in itertools.product(range(4), repeat=3):
            state: tuple[int, ...] = ()
            spent, loss = 0, 0.0
            for number, index in enumerate(choice):
                own, state = cost(number, state, stages[number][index])
                spent, loss = spent + own, loss + stages[number][index].loss
            best = min(best, loss) if spent <= budget else best
        found = combine(stages, cost, budget)
        if found is None:
            assert best == np.inf
            continue
        loss = sum(stages[number][index].loss for number, index in enumerate(found))
        assert loss == pytest.approx(best)
        assert loss <= last
        last = loss


def test_a_run_ends_within_the_budget_and_says_what_it_found() -> None:
    for method in (StageWise(), StageWise(samples=0)):
        found = trained(staged(), method, labelled(), share=0.5)
        search = next(entry for entry in found.plan.solver.trace if entry.get("stage") == "search")
        assert len(search["errors"]) == 3


def test_other_budgets_are_met_by_the_ranking() -> None:
    solving = graphprune.SolveOptions(solver="global", round_to=1)
    budget = graphprune.BudgetRequest("params", 0.5)
    data = labelled()
    found = graphprune.train(graphprune.load(staged()), data, budget, StageWise(), TrainOptions(QUICK, solving))
    assert found.plan.budget.after <= found.plan.budget.limit
    assert any("params" in str(entry.get("found")) for entry in found.plan.solver.trace)


def test_what_has_no_meaning_is_refused() -> None:
    for wrong in ({"samples": -1}, {"candidates": 1}, {"until": 0.0}, {"narrowest": 1.0}):
        with pytest.raises(UsageError):
            StageWise(**wrong)  # type: ignore[arg-type]
