# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization is put back where it was folded, and folded again, without changing the function."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from training_cases import folded, images, infer, loaded, normalised, samples

from graphprune.training import bridge
from graphprune.training.check_bridge import check_written
from graphprune.training.unfold import reestimate, settle


def batches() -> Iterator[dict[str, torch.Tensor]]:
    return ({"image": torch.from_numpy(images(16, seed=seed))} for seed in range(4))


def unfolded() -> bridge.Trainable:
    net = bridge.to_torch(loaded(folded()), unfold=True)
    assert settle(net, batches) == 2  # not the gate, whose maps are single values
    return net


def test_layers_before_another_layer_are_unfolded() -> None:
    net = bridge.to_torch(loaded(folded()), unfold=True)
    assert sorted(net.graph.nodes[index].inputs[1] for index in net.unfolded) == ["w0", "w1", "w2"]
    assert "b0" not in net.stored
    assert not bridge.to_torch(loaded(normalised()), unfold=True).unfolded


def test_unfolding_and_folding_change_nothing() -> None:
    net = unfolded()
    x = images(8, seed=9)
    with torch.no_grad():
        got = net.module(torch.from_numpy(x)).numpy()
    assert np.abs(got - infer(net.model, x)).max() < 1e-4 * np.abs(got).max()
    written = bridge.to_onnx(net)
    assert check_written(net, written, samples()) < 1e-4
    assert np.abs(infer(written, x) - infer(net.model, x)).max() < 1e-4 * np.abs(got).max()


def test_statistics_are_those_of_the_output_without_bias() -> None:
    net = unfolded()
    first = net.unfolded[0]
    x = np.concatenate([images(16, seed=seed) for seed in range(4)])
    y = torch.nn.functional.conv2d(torch.from_numpy(x), net.stored["w0"], padding=1).detach()
    assert torch.allclose(first.running_mean, y.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(first.running_var, y.var((0, 2, 3), correction=0), rtol=1e-3)
    assert torch.allclose(first.weight, y.var((0, 2, 3), correction=0).add(1e-5).sqrt(), rtol=1e-3)


def test_a_trained_one_is_folded_into_weight_and_bias() -> None:
    net = unfolded()
    optimizer = torch.optim.SGD(net.module.parameters(), lr=0.01)
    net.module.train()
    for step in range(3):
        loss = net.module(torch.from_numpy(images(16, seed=step))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.module.eval()
    written = bridge.to_onnx(net)
    assert check_written(net, written, samples()) < 1e-4
    assert [node.op_type for node in written.proto.graph.node] == [node.op_type for node in net.model.proto.graph.node]
    assert np.abs(infer(written, images(4)) - infer(net.model, images(4))).max() > 1e-3


def test_a_layer_that_is_not_measured_keeps_its_bias_while_training() -> None:
    net = bridge.to_torch(loaded(folded()), unfold=True)
    net.module.train()
    x = images(8)
    with torch.no_grad():
        got = net.module(torch.from_numpy(x)).numpy()
    assert np.abs(got - infer(net.model, x)).max() < 1e-4 * np.abs(got).max()


def test_statistics_of_a_recovered_network_come_to_fit_its_function() -> None:
    net = bridge.to_torch(loaded(normalised()))
    x = torch.from_numpy(np.concatenate([images(16, seed=seed) for seed in range(4)]))
    with torch.no_grad():
        before = net.module(x)
        assert settle(net, batches) == 0
        assert torch.allclose(net.module(x), before, atol=1e-3)
        a = torch.nn.functional.conv2d(x, net.stored["stem.weight"], padding=1)
        assert torch.allclose(net.stored["mean.0"], a.mean((0, 2, 3)), atol=1e-4)
        net.module.train()
        assert torch.allclose(net.module(x), before, atol=1e-3)  # the batch is what was measured


def test_reestimated_statistics_change_the_function_to_that_of_training_mode() -> None:
    net = bridge.to_torch(loaded(normalised()))
    x = torch.from_numpy(images(16, seed=0))
    with torch.no_grad():
        net.module.train()
        wanted = net.module(x)
        net.module.eval()
        before = net.module(x)
        assert reestimate(net, lambda: [{"image": x}]) == 2
        assert not torch.allclose(before, wanted, atol=0.1)
        assert torch.allclose(net.module(x), wanted, atol=2e-2)  # up to the bias of the variance
    assert [net.module.norm.momentum, net.module.norm_0.momentum] == [1 - 0.9, 1 - 0.9]
