# SPDX-License-Identifier: Apache-2.0
"""Gates mask channels as surgery removes them, and their gradients are what a removal changes to first order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pruning_cases import depthwise
from tiny_models import chain
from training_cases import folded, images, infer, loaded, normalised

import graphprune
from graphprune.errors import UsageError
from graphprune.training.bridge import to_torch
from graphprune.training.gates import attach_gates, gateable
from graphprune.training.gradient_saliency import fisher, taylor_activation, taylor_weight
from graphprune.training.loader import Samples

CONCATENATED = """a = Relu (h)
    k = Conv (x, second)
    b = Sigmoid (k)
    m = Concat <axis = 1> (a, b)"""


def test_gates_of_ones_change_nothing() -> None:
    model = loaded(normalised())
    net = to_torch(model)
    gates = attach_gates(net, graphprune.analyze(model))
    assert gates
    x = images(4)
    with torch.no_grad():
        got = net.module(torch.from_numpy(x)).numpy()
    assert np.abs(got - infer(model, x)).max() < 1e-4


@pytest.mark.parametrize("make", [normalised, folded])
def test_a_gate_of_zero_is_the_pruned_network(make: object) -> None:
    model = loaded(make())  # type: ignore[operator]
    analysis = graphprune.analyze(model)
    plan = graphprune.solve(analysis, graphprune.BudgetRequest("flops", 0.5), graphprune.SolveOptions(round_to=1))
    net = to_torch(model)
    gates = attach_gates(net, analysis)
    for group in plan.groups:
        value = torch.zeros(group.size)
        value[list(group.kept)] = 1.0
        gates[group.id].value = value
    x = images(4)
    with torch.no_grad():
        got = net.module(torch.from_numpy(x)).numpy()
    expected = infer(graphprune.apply(analysis, plan), x)
    assert not np.allclose(got, infer(model, x), atol=1e-2)
    assert np.abs(got - expected).max() < 1e-4


def test_a_channel_that_is_passed_on_has_one_gate_where_it_is_read() -> None:
    model = loaded(depthwise())
    analysis = graphprune.analyze(model)
    nets = [to_torch(model) for _ in range(2)]
    both = [attach_gates(net, analysis, passing=passing) for net, passing in zip(nets, (True, False), strict=True)]
    counts = [
        sum(isinstance(held, torch.fx.Node) for held in net.module.graph.find_nodes(op="call_module", target="gate_0"))
        for net in nets
    ]
    assert counts[1] == counts[0] - 1 > 0
    x = torch.from_numpy(images(4))
    shut = {name: (torch.arange(gate.size) % 3 != 0).float() for name, gate in both[0].items()}
    with torch.no_grad():
        found = []
        for net, gates in zip(nets, both, strict=True):
            for name, gate in gates.items():
                gate.value = shut[name]
            found.append(net.module(x))
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_several_groups_on_one_axis() -> None:
    model = loaded(chain(CONCATENATED, {"second": (8, 3, 1, 1)}, after=16))
    analysis = graphprune.analyze(model)
    assert len(analysis.groups) == 2
    net = to_torch(model)
    gates = attach_gates(net, analysis)
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        whole = net.module(x)
        parts = []
        for name in gates:
            for other, gate in gates.items():
                gate.value = torch.full((8,), float(other == name))
            parts.append(net.module(x))
    assert torch.allclose(sum(parts), whole, atol=1e-5)
    assert not torch.allclose(parts[0], whole, atol=1e-2)


def test_an_unknown_group_is_refused() -> None:
    model = loaded(normalised())
    with pytest.raises(UsageError, match="'g999'"):
        attach_gates(to_torch(model), graphprune.analyze(model), ["g999"])


def test_a_group_that_something_out_of_reach_reads_gets_no_gate() -> None:
    model = loaded(normalised())
    analysis = graphprune.analyze(model)
    net = to_torch(model)
    whole = gateable(net, analysis)
    assert whole == [group.id for group in analysis.groups]
    lost = analysis.scope.space.contractions[0]
    del net.values[lost.node.inputs[lost.slot]]
    left = gateable(net, analysis)
    assert len(left) < len(whole)
    assert set(attach_gates(net, analysis, left)) == set(left)


def batch(count: int = 5) -> Samples:
    return Samples({"image": torch.from_numpy(images(count))}, torch.arange(count) % 4, count)


def loss_sum(outputs: dict[str, torch.Tensor], labels: torch.Tensor | None) -> torch.Tensor:
    assert labels is not None
    return torch.nn.functional.cross_entropy(outputs["scores"], labels, reduction="sum")


def test_gradients_per_sample_are_finite_differences() -> None:
    model = loaded(normalised())
    analysis = graphprune.analyze(model)
    net = to_torch(model)
    net.module.double()
    gates = attach_gates(net, analysis)
    samples = batch()
    x = samples.feeds["image"].double()
    name, gate = next(iter(gates.items()))
    leaf = gate.watch(5)
    for other in gates.values():
        if other is not gate:
            other.value = torch.ones(other.size)
    loss_sum(net.run({"image": x}), samples.labels).backward()
    assert leaf.grad is not None
    step = 1e-4
    for atom in (0, 3):
        value = torch.ones(gate.size)
        losses = []
        for sign in (1.0, -1.0):
            value = torch.ones(gate.size, dtype=torch.float64)
            value[atom] += sign * step
            gate.value = value
            with torch.no_grad():
                scores = net.run({"image": x})["scores"]
                losses.append(torch.nn.functional.cross_entropy(scores, samples.labels, reduction="none"))
        slope = (losses[0] - losses[1]) / (2 * step)
        assert torch.allclose(leaf.grad[:, atom].double(), slope, rtol=1e-2, atol=1e-5), name


def test_scores_are_signed_before_they_are_magnitudes() -> None:
    """The channel is read with weights w and -w by two consumers whose sum is the output: it has no effect."""
    text = """r = Relu (h)
        p = Conv (r, plus)
        q = Conv (r, minus)
        m = Add (p, q)"""
    weight = np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype(np.float32)
    model = loaded(chain(text, plus=weight, minus=-weight))
    analysis = graphprune.analyze(model)
    samples = Samples({"x": torch.randn(2, 3, 6, 6)}, None, 2)

    def loss(outputs: dict[str, torch.Tensor], labels: object) -> torch.Tensor:
        return (outputs["y"] + 1.0).square().sum()

    found = taylor_activation(analysis, [samples], loss)
    first = next(g for g in analysis.groups if any(m.initializer == "first" for m in g.members))
    assert np.abs(found[first.id]).max() < 1e-4


def test_three_scores_for_every_group() -> None:
    model = loaded(normalised())
    analysis = graphprune.analyze(model)
    for score in (taylor_activation, fisher, taylor_weight):
        found = score(analysis, [batch(4), batch(3)], loss_sum)
        assert {group.id: group.size for group in analysis.groups} == {name: len(v) for name, v in found.items()}
        assert all((value >= 0).all() and value.any() for value in found.values())


def test_fisher_is_half_the_mean_square() -> None:
    model = loaded(folded())
    analysis = graphprune.analyze(model)
    single = [Samples({"image": batch().feeds["image"][i : i + 1]}, batch().labels[i : i + 1], 1) for i in range(5)]
    absolute = [taylor_activation(analysis, [one], loss_sum) for one in single]
    found = fisher(analysis, [batch()], loss_sum)
    for name, value in found.items():
        assert np.allclose(value, 0.5 * np.mean([a[name] ** 2 for a in absolute], axis=0), rtol=1e-3, atol=1e-7)


def test_weights_times_gradients_are_activations_times_gradients() -> None:
    """For a layer without bias the sum over its weights equals the sum over its outputs."""
    model = loaded(chain("m = Identity (h)"))
    analysis = graphprune.analyze(model)
    samples = Samples({"x": torch.randn(1, 3, 6, 6)}, None, 1)

    def loss(outputs: dict[str, torch.Tensor], labels: object) -> torch.Tensor:
        return (outputs["y"] - 1.0).square().sum()

    weights, activations = (score(analysis, [samples], loss) for score in (taylor_weight, taylor_activation))
    for name, value in weights.items():
        assert np.allclose(value, activations[name], rtol=1e-3)
