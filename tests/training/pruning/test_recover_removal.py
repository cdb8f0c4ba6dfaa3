# SPDX-License-Identifier: Apache-2.0
"""A removal is made good before training goes on: towards what the network gave just before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pruning_cases import KINDS, QUICK, labelled, trained
from training_cases import Array, images, infer

import graphprune
from graphprune.plan.schema import Plan
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.solvers import training
from graphprune.training.preparation import prepare
from graphprune.training.pruning import recover_removal
from graphprune.training.pruning.run import Run
from graphprune.training.pruning.running_network import begin


def planned(analysis: graphprune.Analysis, share: float) -> Plan:
    options = graphprune.SolveOptions(solver="uniform", criterion="l1", round_to=1)
    return graphprune.solve(analysis, graphprune.BudgetRequest("flops", share), options)


def started(kind: str, recovery: RecoverOptions | None) -> Run:
    model, data = graphprune.load(KINDS[kind]()), labelled(256)
    task, _, _ = prepare(model, data, None, QUICK)
    analysis = graphprune.analyze(model)
    return Run(begin(task.net, analysis), task, data, (), graphprune.SolveOptions(), 1, recovery=recovery)


def outputs(run: Run, x: Array) -> Array:
    run.running.net.module.eval()
    with torch.no_grad():
        found: Array = run.running.net.module(torch.from_numpy(x)).numpy()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_two_removals_with_training_between(kind: str) -> None:
    """The second one is held against the network as it was by then, not against what it began as."""
    run, x = started(kind, RecoverOptions(samples=256)), images(64, seed=5)
    analysis = run.running.whole
    assert run.shrink(planned(analysis, 0.8))
    with torch.no_grad():
        for value in run.running.net.module.parameters():
            value.mul_(1.1)
    before, plan = outputs(run, x), planned(analysis, 0.55)
    rival = replace(run, recovery=None)
    assert rival.shrink(plan)
    bare = np.square(outputs(rival, x) - before).mean()
    assert run.shrink(plan)
    assert np.square(outputs(run, x) - before).mean() < bare
    assert [entry["stage"] for entry in run.trace] == ["recovery", "recovery"]
    whole = run.running.written()
    again = graphprune.apply(whole, plan, rebind=True)
    assert np.abs(infer(again, x) - outputs(run, x)).max() < 1e-4  # the whole model has taken it over


def test_weights_without_a_place_are_not_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover_removal, "fits", lambda *_: False)
    run, rival, x = started("residual", RecoverOptions()), started("residual", None), images(8)
    plan = planned(run.running.whole, 0.6)
    assert run.shrink(plan)
    assert rival.shrink(plan)
    assert np.array_equal(outputs(run, x), outputs(rival, x))
    assert run.trace[-1]["kept"] is False


@pytest.mark.parametrize("name", ["slimming", "cac"])
def test_what_goes_last_is_made_good_too(name: str) -> None:
    kind = training.get(name)
    good = trained(KINDS["residual"](), kind(), labelled(256), share=0.5)
    bare = trained(KINDS["residual"](), kind(), labelled(256), share=0.5, recovery=None)
    assert good.pruned
    assert bare.pruned is (name == "cac")
    assert any(entry["stage"] == "recovery" for entry in good.plan.solver.trace)
    assert not any(entry["stage"] == "recovery" for entry in bare.plan.solver.trace)


@pytest.mark.parametrize("name", ["cac", "stage-wise"])
def test_training_never_ends_worse_than_what_was_made_good(name: str) -> None:
    """A rate that undoes what least squares gave: the weights of then come back."""
    how = replace(QUICK, epochs=4, rate=0.5)
    found = trained(KINDS["residual"](), training.get(name)(until=0.5), labelled(256), how, share=0.5)
    best = [entry for entry in found.plan.solver.trace if entry["stage"] == "best"]
    assert len(best) == 1
    assert found.after.loss == pytest.approx(best[0]["loss"], abs=1e-4)


def test_what_is_merged_needs_nothing() -> None:
    found = trained(KINDS["residual"](), training.get("csgd")(), labelled())
    assert found.plan.lossless
    assert not any(entry["stage"] == "recovery" for entry in found.plan.solver.trace)
