# SPDX-License-Identifier: Apache-2.0
"""Samples to learn from are made from a file: seeded, fresh in every epoch, and judged by others of another kind."""

from __future__ import annotations

import numpy as np
import pytest
from remembering_models import network, trained_on

from graphprune.analysis.analysis import Analysis
from graphprune.api import apply, solve
from graphprune.array_types import Array
from graphprune.data.source import Source
from graphprune.data.synthesis.make_samples import SampleOptions
from graphprune.data.synthesis.pink import pink_noise
from graphprune.model.load import Model
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions
from graphprune.training.finetune import FinetuneOptions, finetune
from graphprune.training.made_training_data import make_training_data


def values(source: Source) -> Array:
    return source.read(np.arange(len(source))).feeds["image"]


@pytest.fixture(scope="module")
def trained() -> Model:
    seen = pink_noise(np.random.default_rng(7), 256, 12, 12).transpose(0, 3, 1, 2)
    return trained_on(network(), np.ascontiguousarray(seen))


def test_an_epoch_shows_every_sample_as_often(trained: Model) -> None:
    made = make_training_data(trained, SampleOptions(count=64, candidates=1))
    assert made.facts["different"] == 64
    assert made.facts["refined"]["mismatch"][1] < made.facts["refined"]["mismatch"][0]
    counts = np.bincount(made.learned.positions)
    assert counts.tolist() == [16 * 1024 // 64] * 64
    assert sorted(made.learned.limited(64).positions) == list(range(64))


def test_augmentation_is_left_out_unless_asked_for(trained: Model) -> None:
    made = make_training_data(trained, SampleOptions(count=32, candidates=1))
    assert made.suited(FinetuneOptions()).augment == "none"
    assert made.suited(FinetuneOptions(augment="flip")).augment == "flip"


def test_what_judges_is_never_learned_from(trained: Model) -> None:
    made = make_training_data(trained, SampleOptions(count=64))
    assert len(made.judges) == 32
    learned, judging = (values(one).reshape(len(one), -1) for one in (made.learned.limited(64), made.judges))
    assert np.abs(judging[:, None] - learned[None]).max(axis=2).min() > 0.01


def test_the_seed_decides(trained: Model) -> None:
    one, same, other = (
        values(make_training_data(trained, SampleOptions(count=16, seed=seed)).learned.limited(16))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).mean() > 0.01


def test_a_pruned_network_learns_from_them(trained: Model) -> None:
    analysis = Analysis(trained)
    pruned = apply(analysis, solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(solver="uniform", round_to=1)))
    made = make_training_data(trained, SampleOptions(count=128))
    options = made.suited(FinetuneOptions(epochs=2, batch=32, rate=0.01, device="cpu"))
    tuned = finetune(pruned, made.learned.limited(512), trained, options, judges=made.judges)
    assert tuned.facts["held_out"] == len(made.judges)
    assert (tuned.facts["samples"], tuned.facts["augment"]) == (512, "none")
    assert tuned.improved
    assert tuned.after.loss < tuned.before.loss
