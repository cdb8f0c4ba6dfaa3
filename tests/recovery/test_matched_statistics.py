# SPDX-License-Identifier: Apache-2.0
"""A network that is matched to samples of another world sees them as its own, and gets its statistics back."""

from __future__ import annotations

import numpy as np
import pytest
from recovery_models import block
from remembering_models import network, outputs, trained_on

from graphprune.analysis.analysis import Analysis
from graphprune.api import apply, load, solve
from graphprune.array_types import Array
from graphprune.data.arrays import from_arrays
from graphprune.data.signature import input_specs
from graphprune.data.source import Source
from graphprune.data.statistics import remembered, sample_statistics
from graphprune.data.synthesis.pink import pink_noise
from graphprune.model.graph import Graph
from graphprune.model.load import Model
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions
from graphprune.recovery.matched_statistics import match_statistics, put_back, put_in
from graphprune.recovery.recover import recover
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.recovery.without_data import recover_matched


def images(count: int, seed: int, brightness: float = 0.0, contrast: float = 1.0) -> Array:
    made = pink_noise(np.random.default_rng(seed), count, 12, 12)
    made = (made - made.mean()) / made.std()
    return np.ascontiguousarray((brightness + contrast * made).transpose(0, 3, 1, 2), dtype=np.float32)


def source(model: Model, values: Array) -> Source:
    specs = input_specs(model)
    return from_arrays("images", specs, {specs[0].name: values})


@pytest.fixture
def trained() -> Model:
    return trained_on(network(), images(256, 0))


def test_every_normalisation_gives_what_it_gave_in_training(trained: Model) -> None:
    foreign = images(192, 1, brightness=1.5, contrast=0.4)
    matched = match_statistics(trained, source(trained, foreign))
    assert matched is not None
    graph = Graph(matched.model.proto)
    norms = remembered(matched.model, graph)
    met = [one.over(slice(None)) for one in sample_statistics(matched.model, graph, norms, [{"image": foreign}])]
    for norm, own in zip(norms, met, strict=True):
        np.testing.assert_allclose(norm.kept.mean, own.mean, atol=1e-3 * np.sqrt(own.variance).max())
        np.testing.assert_allclose(norm.kept.variance, own.variance, rtol=0.02)
    assert matched.mismatch > 0.1


def test_right_samples_hardly_move_a_network(trained: Model) -> None:
    matched = match_statistics(trained, source(trained, images(256, 0)))
    assert matched is not None
    assert matched.mismatch < 1e-6
    seen = images(16, 5)
    np.testing.assert_allclose(outputs(matched.model, seen), outputs(trained, seen), rtol=1e-3, atol=1e-3)


def test_a_network_without_normalisation_is_not_matched() -> None:
    plain = load(block(norm=False))
    values = np.random.default_rng(0).standard_normal((16, 3, 10, 10)).astype(np.float32)
    assert match_statistics(plain, source(plain, values)) is None


def pruned_network(trained: Model) -> tuple[Analysis, object, Model]:
    analysis = Analysis(trained)
    plan = solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(solver="uniform", criterion="l1", round_to=1))
    return analysis, plan, apply(analysis, plan)


def test_statistics_that_were_put_in_are_put_back(trained: Model) -> None:
    analysis, plan, pruned = pruned_network(trained)
    matched = match_statistics(trained, source(trained, images(128, 1, brightness=1.0)))
    assert matched is not None
    dressed = put_in(matched, pruned, analysis, plan)
    seen = images(8, 3)
    assert np.abs(outputs(dressed, seen) - outputs(pruned, seen)).max() > 0.1
    again = put_back(matched, dressed, analysis, plan)
    np.testing.assert_allclose(outputs(again, seen), outputs(pruned, seen), rtol=1e-4, atol=1e-4)


def test_samples_of_another_world_recover_better_when_matched(trained: Model) -> None:
    analysis, plan, pruned = pruned_network(trained)
    foreign, seen = source(trained, images(256, 1, brightness=2.0, contrast=0.3)), images(256, 9)
    options = RecoverOptions(samples=256)
    matched = match_statistics(trained, foreign)
    assert matched is not None
    with_it = recover_matched(analysis, plan, pruned, foreign, options, matched).model
    without = recover(analysis, plan, pruned, foreign, options).model
    wanted = outputs(trained, seen)
    errors = [float(np.square(outputs(model, seen) - wanted).mean()) for model in (pruned, without, with_it)]
    assert errors[2] < 0.7 * min(errors[:2])
