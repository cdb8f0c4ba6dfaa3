# SPDX-License-Identifier: Apache-2.0
"""FBS: predictors choose channels per sample, the gated file does the same, and what never fires can go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pruning_cases import KINDS, QUICK, coupled, labelled, trained
from tiny_models import model
from training_cases import images, infer

import graphprune
from graphprune.errors import UsageError
from graphprune.report.summary import plan_notes
from graphprune.rewrites.merge import inherit
from graphprune.solvers.training.fbs import Fbs
from graphprune.training.preparation import prepare
from graphprune.training.pruning.predictors import Predictor
from graphprune.training.pruning.run import Run
from graphprune.training.pruning.running_network import begin


def test_exactly_the_largest_stay() -> None:
    torch.manual_seed(0)
    predictor = Predictor(1, 6, 10)
    x = torch.randn(50, 6, 4, 4)
    with torch.no_grad():
        predictor.phi.normal_(0, 1.0)
        for density, kept in ((1.0, 10), (0.5, 5), (0.31, 4), (0.05, 1)):
            predictor.density = density
            whole = torch.relu(x.mean((2, 3)) @ predictor.phi + predictor.rho)
            found = predictor(x)
            active = (found > 0).sum(1)
            assert predictor.kept == kept
            assert bool((active <= kept).all())
            distinct = (whole > 0).sum(1) > kept
            assert bool((active[distinct] == kept).all())
            assert torch.equal(found[found > 0], whole[found > 0])


def test_ties_switch_off() -> None:
    predictor = Predictor(1, 3, 4)
    predictor.density = 0.5
    with torch.no_grad():
        predictor.phi.zero_()
        assert float(predictor(torch.randn(2, 3)).sum()) == 0.0


def course_of(method: Fbs, kind: str) -> Run:
    found = graphprune.load(KINDS[kind]())
    data = labelled()
    task, _, _ = prepare(found, data, None, replace(QUICK, unfold=False))
    budget = (graphprune.BudgetRequest("flops", 0.7),)
    solving = graphprune.SolveOptions(solver="global", round_to=1)
    run = Run(begin(task.net, graphprune.analyze(found)), replace(task, hook=method), data, budget, solving, 9)
    method.begin_run(run)
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_gates_of_ones_are_the_network(kind: str) -> None:
    method = Fbs()
    run = course_of(method, kind)
    with torch.no_grad():
        for predictor in method._predictors.values():
            predictor.phi.zero_()
        x = images(4)
        run.running.net.module.eval()
        got = run.running.net.module(torch.from_numpy(x)).numpy()
    assert np.abs(got - infer(run.running.written(), x)).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_gated_file_computes_what_the_module_does(kind: str) -> None:
    method = Fbs()
    run = course_of(method, kind)
    with torch.no_grad():
        for predictor in method._predictors.values():
            predictor.density = 0.5
            predictor.phi.normal_(0, 0.3)
    run.running.net.module.eval()
    x = images(16)
    with torch.no_grad():
        expected = run.running.net.module(torch.from_numpy(x)).numpy()
    gated = method._export(run)
    assert np.abs(infer(gated, x) - expected).max() < 1e-4
    assert np.abs(infer(run.running.written(), x) - expected).max() > 1e-2
    assert {node.op_type for node in gated.proto.graph.node} >= {"TopK", "Greater", "Where", "Gemm", "Mul"}
    assert {node.domain for node in gated.proto.graph.node} == {""}


def test_a_channel_that_never_fires_can_go() -> None:
    method = Fbs(density=1.0)
    run = course_of(method, "folded")
    with torch.no_grad():
        for predictor in method._predictors.values():
            predictor.phi.zero_()
            predictor.rho[:] = 1.0
            predictor.rho[3] = -1.0
    x = torch.from_numpy(images(8))
    run.running.net.module.eval()
    with torch.no_grad():
        gated = run.running.net.module(x)
    plan = method.survivors(run)
    assert plan is not None
    for name, fires in method._fires.items():
        kept = next(group.kept for group in plan.groups if group.id == name)
        assert fires[3] == 0.0
        assert 3 not in kept
    left = tuple(np.setdiff1d(np.arange(group.size), [3]) for group in run.groups)
    groups, _ = inherit(run.running.whole, left, "keep")
    assert run.shrink(replace(plan, groups=groups))
    with torch.no_grad():  # all gates are 1 or 0, and folded
        assert torch.allclose(run.running.net.module(x), gated, atol=1e-5)


def test_channels_that_never_fire_are_proven_to_be_gone() -> None:
    found = trained(KINDS["depthwise"](), Fbs(density=0.3), labelled())
    pruned = graphprune.apply(found.analysis, found.plan)
    assert graphprune.verify(found.analysis, pruned, found.plan).status == "verified"
    (note,) = (note for note in plan_notes(found.plan) if "expected FLOPs" in note)
    assert "static FLOPs" in note


def test_expected_and_static_cost_are_told_apart() -> None:
    found = trained(KINDS["residual"](), Fbs(density=0.5), labelled())
    said = next(entry for entry in found.plan.solver.trace if entry.get("stage") == "gated")
    assert said["static_flops"] == found.plan.budget.before
    assert 0 < said["expected_flops"] < said["static_flops"]
    gated = found.further["gated"]
    assert infer(gated, images(3)).shape == (3, 4)


def test_the_density_falls_in_steps() -> None:
    method = Fbs(density=0.6, until=1.0)
    method._run = course_of(Fbs(), "folded")
    method._run.total = 90
    found = [method.density_at(step) for step in range(90)]
    assert sorted(found, reverse=True) == found
    assert sorted({round(value, 6) for value in found}) == [0.6, 0.7, 0.8, 0.9, 1.0]
    assert found[30] == 1.0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="none is gated"):
        trained(coupled(), Fbs(), labelled())
    for wrong in ({"density": 0.0}, {"until": 1.5}, {"sparsity": -1.0}, {"images": 0}):
        with pytest.raises(UsageError):
            Fbs(**wrong)  # type: ignore[arg-type]


def test_a_layer_that_makes_two_groups() -> None:
    text = """(float[n,3,8,8] image) => (float[n,4] scores) {
        a = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
        r = Relu (a)
        left, right = Split <axis = 1, num_outputs = 2> (r)
        p = Conv (left, w1)
        q = Conv (right, w2)
        s = Add (p, q)
        m = GlobalAveragePool (s)
        f = Flatten (m)
        scores = Gemm <transB = 1> (f, w3, b3)
    }"""
    shapes = {"w0": (12, 3, 3, 3), "b0": (12,), "w1": (8, 6, 1, 1), "w2": (8, 6, 1, 1), "w3": (4, 8), "b3": (4,)}
    found = trained(model(text, shapes, opset=18), Fbs(), labelled())
    gates = [entry for entry in found.plan.solver.trace if entry.get("stage") == "gates"]
    assert len(gates) >= 2
    assert infer(found.further["gated"], images(3)).shape == (3, 4)
