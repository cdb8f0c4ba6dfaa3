# SPDX-License-Identifier: Apache-2.0
"""Regularisers draw whole channels towards zero, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pruning_cases import KINDS, QUICK, coupled, labelled, unlabelled

import graphprune
from graphprune.errors import UsageError
from graphprune.training.bridge import to_torch
from graphprune.training.finetune import finetune
from graphprune.training.hooks import Moment
from graphprune.training.loader import Samples
from graphprune.training.pruning.regularize import Regularizer
from graphprune.training.pruning.tensor_slices import find_slices, norms


def prepared(kind: str, name: str, strength: float = 1.0) -> Regularizer:
    model = graphprune.load(KINDS[kind]())
    return Regularizer(to_torch(model), graphprune.analyze(model), name, strength)


def test_l1_is_the_sum_of_the_scales() -> None:
    model = graphprune.load(coupled())
    found = Regularizer(to_torch(model), graphprune.analyze(model), "bn-l1", 0.5)
    stored = to_torch(model).stored
    expected = 0.5 * (stored["bn.weight"].abs().sum() + stored["bn2.weight"].abs().sum())
    assert torch.allclose(found.penalty(), expected)
    assert torch.allclose(found.scales("g000"), (stored["bn.weight"].abs() + stored["bn2.weight"].abs()) / 2)


def test_groups_without_batch_normalization_have_norms() -> None:
    found = prepared("transformer", "bn-l1")
    other = prepared("transformer", "group-norm")
    assert found.scales("g000") is None
    assert torch.allclose(found.penalty(), other.penalty())


def test_the_norm_runs_over_all_that_makes_and_reads_a_channel() -> None:
    model = graphprune.load(KINDS["folded"]())
    analysis, net = graphprune.analyze(model), to_torch(graphprune.load(KINDS["folded"]()))
    slices = find_slices(net, analysis)
    group = next(item for item in analysis.groups if any(member.initializer == "w0" for member in item.members))
    w0, b0, w1 = (net.stored[name].detach() for name in ("w0", "b0", "w1"))
    expected = (w0.square().sum((1, 2, 3)) + b0.square() + w1.square().sum((0, 2, 3))).sqrt()
    assert torch.allclose(norms(group, slices[group.id]), expected)


@pytest.mark.parametrize("name", ["bn-l1", "group-norm", "growing"])
def test_gradients_are_added(name: str) -> None:
    found = prepared("depthwise", name, 0.1)
    tensors = {
        item.name: item.tensor for slices in found.slices.values() for item in slices if item.part != "statistic"
    }
    for value in tensors.values():
        value.grad = torch.ones_like(value)
    found.rewrite(Moment(5, 10, Samples({}, None, 0)))
    again = {key: value.grad.clone() for key, value in tensors.items() if value.grad is not None}
    for value in tensors.values():
        value.grad = None
    found.penalty(0.5).backward()
    for key, value in tensors.items():
        expected = torch.ones_like(value) + (0 if value.grad is None else value.grad)
        assert torch.allclose(again[key], expected, atol=1e-6), key


def test_growing_spares_what_stays() -> None:
    found = prepared("folded", "growing")
    assert {name: int(mask.sum()) for name, mask in found.going.items()} == {"g000": 4, "g001": 4}
    assert float(found.penalty(0.0).detach()) == 0.0
    found.penalty(1.0).backward()
    rows = next(item for item in found.slices["g000"] if item.role == "out")
    assert rows.tensor.grad is not None
    touched = rows.tensor.grad.flatten(1).abs().sum(1) > 0
    assert touched.numpy().tolist() == found.going["g000"].tolist()


STRENGTHS = {"bn-l1": 0.5, "group-norm": 0.02, "growing": 1.0}


@pytest.mark.parametrize("name", STRENGTHS)
def test_finetuning_with_a_regulariser_makes_channels_small(name: str) -> None:
    model = graphprune.load(KINDS["folded"]())
    how = replace(QUICK, regularize=name, strength=STRENGTHS[name], rate=0.05)
    plain = finetune(model, unlabelled(), model, replace(QUICK, rate=0.05))
    found = finetune(model, unlabelled(), model, how)
    assert not plain.improved
    assert found.improved
    assert found.best_step == found.steps
    before, after = (_smallest(item) for item in (model, found.model))
    assert after < 0.9 * before


def _smallest(model: graphprune.Model) -> float:
    """Return the mean norm of the lower half of all filters."""
    analysis = graphprune.analyze(model)
    net = to_torch(model)
    slices = find_slices(net, analysis)
    values = [np.sort(norms(group, slices[group.id]).detach().numpy()) for group in analysis.groups]
    return float(np.mean([value[: len(value) // 2].mean() for value in values]))


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(UsageError, match="no regulariser 'foo'"):
        prepared("folded", "foo")
    with pytest.raises(UsageError, match="must not be negative"):
        prepared("folded", "bn-l1", -1.0)
    with pytest.raises(UsageError, match="no regulariser"):
        finetune(graphprune.load(KINDS["folded"]()), labelled(), None, replace(QUICK, regularize="foo"))
