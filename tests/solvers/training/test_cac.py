# SPDX-License-Identifier: Apache-2.0
"""CAC: both estimates say what a channel is worth, channels go gradually, and the whole ends within the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper
from pruning_cases import KINDS, QUICK, labelled, trained, unlabelled
from training_cases import images, infer, normalised

import graphprune
from graphprune.errors import UsageError
from graphprune.solvers.training.cac import Cac, standard_error
from graphprune.training.hooks import Moment
from graphprune.training.preparation import prepare
from graphprune.training.pruning.run import Run
from graphprune.training.pruning.running_network import begin


def unread(name: str, atom: int) -> ModelProto:
    """Return the folded network in which nobody makes use of one input channel of a weight."""
    proto = KINDS["folded"]()
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            value = numpy_helper.to_array(tensor).copy()
            value[:, atom] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(value, name))
    return proto


def measured(method: Cac, proto: ModelProto, steps: int) -> Run:
    """Let a method watch a network that does not learn."""
    model = graphprune.load(proto)
    data = labelled(320)
    how = replace(QUICK, unfold=False, batch=64)
    task, _, _ = prepare(model, data, None, how)
    running, solving = begin(task.net, graphprune.analyze(model)), graphprune.SolveOptions()
    run = Run(running, replace(task, hook=method), data, (), solving, 10**6)
    method.begin_run(run)
    net = run.running.net
    net.module.eval()
    for step, samples in enumerate(task.loader.stream(0, steps)):
        torch.manual_seed(step)
        moment = Moment(step, 10**6, samples)
        method.begin(moment)
        moment.outputs = net.run(samples.feeds)
        if method.estimator == "first-order":
            task.objective(moment.outputs, None, samples.labels).backward()
            method.rewrite(moment)
        method.end(moment)
    return run


def test_a_channel_that_nobody_reads_is_worth_nothing() -> None:
    first = Cac(estimator="first-order")
    measured(first, unread("w1", 3), 4)
    assert first.changes()["g000"][3] == 0.0
    assert np.abs(first.changes()["g000"]).max() > 1e-3
    monte = Cac(estimator="monte-carlo", decay=1 - 1e-9)
    run = measured(monte, unread("w1", 3), 40)
    change = monte.changes()["g000"][3]
    samples = next(iter(run.task.loader.stream(0, 1)))
    with torch.no_grad():
        outputs = run.running.net.run(samples.feeds)
        losses = run.task.objective.each(outputs, None, samples.labels)
    assert abs(change) < 3 * standard_error(float(losses.std()), 0.1, 40 * 64)


def test_the_first_order_estimate_is_a_finite_difference() -> None:
    method = Cac(estimator="first-order", decay=0.0)
    run = measured(method, KINDS["folded"](), 1)
    net, gate = run.running.net, method._gates["g001"]
    net.module.double()
    samples = next(iter(run.task.loader.stream(0, 1)))
    feeds = {name: value.double() for name, value in samples.feeds.items()}
    losses = []
    for value in (1.0, 1.0 - 1e-3):
        gate.value = torch.ones(gate.size, dtype=torch.float64)
        gate.value[2] = value
        with torch.no_grad():
            losses.append(float(run.task.objective(net.run(feeds), None, samples.labels)))
    assert losses[1] - losses[0] == pytest.approx(1e-3 * method.changes()["g001"][2], rel=0.01)


def test_both_estimates_agree_on_what_matters() -> None:
    """Random gates shut one channel in ten, so changes differ from the derivative, but not in what is large."""
    first, monte = Cac(estimator="first-order", decay=0.999999), Cac(estimator="monte-carlo", decay=0.999999, off=0.05)
    for method in (first, monte):
        measured(method, KINDS["folded"](), 120)
    one, other = (np.concatenate(list(method.changes().values())) for method in (first, monte))
    assert np.corrcoef(one, other)[0, 1] > 0.6


def test_the_standard_error_is_that_of_a_simulation() -> None:
    random = np.random.default_rng(0)
    gates = random.random((400, 2000)) < 0.9
    gain = random.random((400, 2000)) < 0.64
    found = [gain[row][gates[row]].mean() - gain[row][~gates[row]].mean() for row in range(400)]
    assert np.std(found) == pytest.approx(standard_error(0.48, 0.1, 2000), rel=0.2)


def test_open_gates_are_the_plain_network() -> None:
    method = Cac()
    run = measured(method, KINDS["residual"](), 1)
    method.rest()
    x = images(4)
    with torch.no_grad():
        got = run.running.net.module(torch.from_numpy(x)).numpy()
    assert np.abs(got - infer(run.running.written(), x)).max() < 1e-5


@pytest.mark.parametrize("estimator", ["first-order", "monte-carlo"])
def test_channels_go_gradually(estimator: str) -> None:
    found = trained(KINDS["concat"](), Cac(estimator=estimator, times=3, until=0.8), labelled(), share=0.5)
    removals = [entry for entry in found.plan.solver.trace if entry.get("stage") == "removal"]
    costs = [entry["cost"] for entry in removals]
    assert len(costs) >= 2
    assert sorted(costs, reverse=True) == costs
    assert costs[-1] <= found.plan.budget.limit
    assert removals[-1]["step"] <= round(0.8 * found.facts["steps"])  # type: ignore[operator]


def test_a_wide_network_comes_down_to_the_cost_of_the_narrow_one() -> None:
    """Double, and prune back to what the original costs."""
    narrow = graphprune.load(KINDS["residual"]())
    cost = graphprune.analyze(narrow).cost
    limit = cost.flops(cost.sizes)
    wide = graphprune.analyze(graphprune.load(normalised(16)))
    share = limit / wide.cost.flops(wide.cost.sizes)
    found = trained(normalised(16), Cac(), labelled(), share=share)
    assert found.plan.budget.after <= limit


def test_what_has_no_meaning_is_refused() -> None:
    for wrong in ({"off": 0.0}, {"decay": 1.0}, {"estimator": "guess"}, {"until": 2.0}):
        with pytest.raises(UsageError):
            Cac(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs labels"):
        trained(KINDS["folded"](), Cac(gain="accuracy"), unlabelled())
    assert trained(KINDS["folded"](), Cac(gain="accuracy"), labelled()).plan.solver.name == "cac"


def test_a_network_that_was_pruned_before_shrinks_again() -> None:
    analysis = graphprune.analyze(graphprune.load(normalised()))
    options = graphprune.SolveOptions(round_to=1)
    plan = graphprune.solve(analysis, graphprune.BudgetRequest("flops", 0.8), options)
    before = graphprune.apply(analysis, plan).proto
    assert trained(before, Cac(), labelled()).plan.budget.after > 0
