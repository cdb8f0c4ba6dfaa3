# SPDX-License-Identifier: Apache-2.0
"""Gradients from samples: against finite differences and by hand, with given labels and with drawn ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from recovery_models import block, samples
from tiny_models import chain, model

from graphprune.analysis.analysis import Analysis
from graphprune.api import load
from graphprune.data.agreement import log_softmax
from graphprune.data.arrays import from_arrays
from graphprune.data.capture import capture
from graphprune.data.session import Session
from graphprune.data.signature import input_specs
from graphprune.data.source import Source
from graphprune.errors import DataError, UnsupportedModelError
from graphprune.evidence.sample_evidence import SampleEvidence
from graphprune.planning.make_plan import SolveOptions, score_groups
from graphprune.solvers.criteria._seen import UNSEEN

DRAWN, GIVEN = "likelihood of labels drawn from the outputs", "cross-entropy of the labels"
SMALL = """(float[n, 3, 6, 6] x) => (float[n, 4] y) {
    a = Conv (x, first, bias)
    b = Relu (a)
    c = Conv (b, second)
    d = Relu (c)
    e = GlobalAveragePool (d)
    f = Flatten (e)
    y = Gemm (f, head)
}"""
SHAPES = {"first": (6, 3, 3, 3), "bias": (6,), "second": (5, 6, 3, 3), "head": (5, 4)}


def small() -> ModelProto:
    """Return a network whose weights keep signals at their size."""
    proto = model(SMALL, SHAPES)
    for tensor in proto.graph.initializer:
        value = numpy_helper.to_array(tensor)
        size = np.sqrt(value[0].size) if value.ndim > 1 else 3.0
        tensor.CopyFrom(numpy_helper.from_array((value / size).astype(np.float32), tensor.name))
    return proto


def labelled(proto: ModelProto, count: int, classes: int = 4, seed: int = 0) -> Source:
    plain = samples(proto, count, seed)
    feeds = dict(plain.read(np.arange(count)).feeds)
    labels = np.random.default_rng(seed).integers(0, classes, count)
    return from_arrays("labelled", input_specs(load(proto)), feeds, labels)


def losses(proto: ModelProto, source: Source, scaled: dict[str, Any]) -> np.ndarray:
    """Return the cross-entropy of each sample when tensors are multiplied with something."""
    changed = ModelProto()
    changed.CopyFrom(proto)
    for tensor in changed.graph.initializer:
        if tensor.name in scaled:
            value = (numpy_helper.to_array(tensor) * scaled[tensor.name]).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    batch = source.read(np.arange(len(source)))
    (logits,) = Session(load(changed)).run(batch.feeds)
    assert batch.labels is not None
    return -log_softmax(logits.astype(np.float64))[np.arange(len(source)), batch.labels]


def derivatives(proto: ModelProto, source: Source, tensors: dict[str, int], channel: int) -> np.ndarray:
    """Return the derivative of each sample's loss with respect to a factor on one channel of some tensors."""
    step, found = 1e-2, []
    for sign in (1, -1):
        scaled = {}
        for name, axis in tensors.items():
            rank = len(SHAPES[name])
            factor = np.ones(SHAPES[name][axis])
            factor[channel] += sign * step
            scaled[name] = factor.reshape([-1 if other == axis else 1 for other in range(rank)])
        found.append(losses(proto, source, scaled))
    return (found[0] - found[1]) / (2 * step)


def test_scores_are_what_a_factor_on_the_channel_changes() -> None:
    proto = small()
    analysis, source = Analysis(load(proto)), labelled(proto, 24)
    evidence = SampleEvidence(analysis, source)
    taylor, fisher = evidence.taylor_activation(24), evidence.fisher(24)
    assert taylor.of == fisher.of == GIVEN
    outer = {group.size: number for number, group in enumerate(analysis.groups)}
    for size, reader, axis in ((6, "second", 1), (5, "head", 0)):
        for channel in range(size):
            slopes = derivatives(proto, source, {reader: axis}, channel)
            assert taylor.per_group[outer[size]][channel] == pytest.approx(np.abs(slopes).mean(), rel=0.02, abs=1e-4)
            half = 0.5 * np.square(slopes).mean()
            assert fisher.per_group[outer[size]][channel] == pytest.approx(half, rel=0.04, abs=1e-5)


def test_flows_are_what_a_factor_on_one_layer_changes() -> None:
    proto = small()
    analysis, source = Analysis(load(proto)), labelled(proto, 24)
    found = SampleEvidence(analysis, source).flows(24, squared=False)
    squares = SampleEvidence(analysis, source).flows(24, squared=True)
    sizes = {group.size: number for number, group in enumerate(analysis.groups)}
    flow = found.per_group[sizes[6]]
    assert flow is not None and found.of == GIVEN
    for channel in range(6):
        made = derivatives(proto, source, {"first": 0, "bias": 0}, channel)
        read = derivatives(proto, source, {"second": 1}, channel)
        assert flow.made[channel] == pytest.approx(np.abs(made).mean(), rel=0.02, abs=1e-4)
        assert flow.read[channel] == pytest.approx(np.abs(read).mean(), rel=0.02, abs=1e-4)
        half = squares.per_group[sizes[6]].made[channel]  # type: ignore[union-attr]
        assert half == pytest.approx(0.5 * np.square(made).mean(), rel=0.04, abs=1e-5)
    assert flow.made_points.tolist() == flow.read_points.tolist() == [16.0] * 6
    last = found.per_group[sizes[5]]
    assert last is not None and not last.read.any() and not last.read_points.any()  # read by no convolution


def test_gradients_at_logits_are_probabilities_minus_labels() -> None:
    proto = small()
    analysis, source = Analysis(load(proto)), labelled(proto, 32)
    found = SampleEvidence(analysis, source).output_gradients(32)
    at_head = next(own for own in found if own is not None and own[0].shape == (4,))[0]
    batch = source.read(np.arange(32))
    (logits,) = Session(analysis.model).run(batch.feeds)
    wrong = np.exp(log_softmax(logits.astype(np.float64))) - np.eye(4)[batch.labels]
    np.testing.assert_allclose(at_head, np.sqrt(np.square(wrong).mean(axis=0)), rtol=1e-4)


def test_products_of_the_last_layer_are_known() -> None:
    proto = small()
    analysis, source = Analysis(load(proto)), labelled(proto, 32)
    found = SampleEvidence(analysis, source).products(32)
    batch = source.read(np.arange(32))
    values = next(capture(analysis.model, ["f", "y"], [batch.feeds]))
    wrong = np.exp(log_softmax(values["y"].astype(np.float64))) - np.eye(4)[batch.labels]
    head = numpy_helper.to_array(next(tensor for tensor in proto.graph.initializer if tensor.name == "head"))
    np.testing.assert_allclose(
        found.per_tensor["head"], np.abs(head * (values["f"].T @ wrong)) / 32, rtol=1e-3, atol=1e-7
    )
    assert set(found.per_tensor) == set(SHAPES)


def test_readings_and_output_gradients_belong_together() -> None:
    proto = block(norm=True)
    analysis, source = Analysis(load(proto)), samples(proto, 64)
    evidence = SampleEvidence(analysis, source)
    readings, gradients = evidence.readings(64), evidence.output_gradients(64)
    for read, own in zip(readings, gradients, strict=True):
        assert read is not None and own is not None
        assert [one.weight.shape[1] for one in read] == [len(gradient) for gradient in own]
        assert all(gradient.any() for gradient in own)


def test_drawn_labels_give_the_curvature_of_the_divergence() -> None:
    """Half the mean square of a slope is the divergence that a factor 1 + s causes, over s squared."""
    proto = small()
    analysis, source = Analysis(load(proto)), samples(proto, 1500)
    fisher = SampleEvidence(analysis, source, seed=3).fisher(1500)
    assert fisher.of == DRAWN
    number = next(number for number, group in enumerate(analysis.groups) if group.size == 5)
    feeds, step = source.read(np.arange(1500)).feeds, 0.05
    before = log_softmax(Session(analysis.model).run(feeds)[0].astype(np.float64))
    expected = []
    for channel in range(5):
        changed = ModelProto()
        changed.CopyFrom(proto)
        (tensor,) = (tensor for tensor in changed.graph.initializer if tensor.name == "head")
        value = numpy_helper.to_array(tensor).copy()
        value[channel] *= 1 + step
        tensor.CopyFrom(numpy_helper.from_array(value, "head"))
        after = log_softmax(Session(load(changed)).run(feeds)[0].astype(np.float64))
        expected.append((np.exp(before) * (before - after)).sum(axis=1).mean() / step**2)
    np.testing.assert_allclose(fisher.per_group[number], expected, rtol=0.25)


def test_noise_on_a_map_gives_its_relative_change() -> None:
    """The last layer of the chain is linear: a factor 1 + s on a channel adds s times its part to the output."""
    proto = chain("m = Relu (h)", width=4)
    analysis, source = Analysis(load(proto)), samples(proto, 400)
    found = SampleEvidence(analysis, source).fisher(400)
    assert found.of == DRAWN
    values = [
        next(capture(analysis.model, ["m", "y"], [source.read(index).feeds])) for index in np.arange(400).reshape(-1, 2)
    ]
    parts, output = np.concatenate([value["m"] for value in values]), np.concatenate([value["y"] for value in values])
    last = numpy_helper.to_array(proto.graph.initializer[1])[:, :, 0, 0]
    power = np.square(parts).mean(axis=(0, 2, 3)) * np.square(last).sum(axis=0) / 2
    np.testing.assert_allclose(found.per_group[0], 0.5 * power / output[:2].var(), rtol=0.25)


def test_equal_seeds_draw_equal_labels() -> None:
    proto = small()
    analysis, source = Analysis(load(proto)), samples(proto, 64)
    one, same, other = (SampleEvidence(analysis, source, seed).taylor_weight(64).per_group for seed in (4, 4, 5))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert not all((a == b).all() for a, b in zip(one, other, strict=True))


def test_what_was_asked_before_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = small()
    analysis, source = Analysis(load(proto)), samples(proto, 32)
    evidence = SampleEvidence(analysis, source)
    first = evidence.taylor_activation(1000)
    monkeypatch.setattr(Source, "read", lambda *_: pytest.fail("read again"))
    assert evidence.taylor_activation(32) is first


def test_labels_that_are_no_classes() -> None:
    proto = small()
    analysis, source = Analysis(load(proto)), labelled(proto, 16, classes=9)
    with pytest.raises(DataError, match="the model knows 4"):
        SampleEvidence(analysis, source).fisher(16)


def test_samples_that_are_not_on_axis_0_are_taken_one_by_one() -> None:
    text = """(float[n, 5, 3] x) => (float[5, n, 2] y) {
        t = Transpose <perm = [1, 0, 2]> (x)
        h = MatMul (t, first)
        r = Relu (h)
        y = MatMul (r, last)
    }"""
    proto = model(text, {"first": (3, 6), "last": (6, 2)})
    analysis, source = Analysis(load(proto)), samples(proto, 12)
    found = SampleEvidence(analysis, source).taylor_activation(12)
    assert found.per_group[0] is not None and found.per_group[0].all()


def test_a_model_that_torch_cannot_run_is_named() -> None:
    proto = model(
        """(float[n, 3, 6, 6] x) => (float[n, 2, 6, 6] y) {
            h = Conv (x, first)
            g = com.example.Odd (h)
            y = Conv (g, last)
        }""",
        {"first": (6, 3, 1, 1), "last": (2, 6, 1, 1)},
        domains=', "com.example": 1',
    )
    analysis = Analysis(load(proto))
    with pytest.raises(UnsupportedModelError):
        SampleEvidence(analysis, samples(proto, 4)).fisher(4)


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "cpli", "reconstruct", "hrank"])
def test_every_criterion_scores_a_residual_network(criterion: str) -> None:
    proto = block(norm=True)
    analysis = Analysis(load(proto))
    scores = score_groups(analysis, SolveOptions(criterion=criterion), SampleEvidence(analysis, samples(proto, 64)))
    assert all(np.isfinite(values).all() and values.any() for values in scores.per_group)
    assert UNSEEN not in scores.source
    assert scores.comparable == (criterion in ("taylor", "fisher", "reconstruct"))
