# SPDX-License-Identifier: Apache-2.0
"""Samples are refined until a network meets in them what it remembers: less mismatch, seeded, and otherwise as made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from recovery_models import block
from remembering_models import network, trained_on
from tiny_models import model

from graphprune.api import load
from graphprune.array_types import Array
from graphprune.data.synthesis.make_samples import MadeSamples, SampleOptions, make_samples
from graphprune.errors import UsageError
from graphprune.model.load import Model
from graphprune.training.refine_samples import RefineOptions, refine_samples

QUICK = RefineOptions(passes=30, device="cpu")


def values(made: MadeSamples) -> Array:
    (array,) = made.source.read(np.arange(len(made.source))).feeds.values()
    return array


def gratings(count: int) -> Array:
    """Return stripes of random directions, colours and wave lengths, which no made image looks like."""
    random = np.random.default_rng(7)
    angle, wave, phase = (random.uniform(*span, (count, 1, 1, 1)) for span in ((0, 3.1), (1.0, 2.5), (0, 6.2)))
    y, x = np.mgrid[:12, :12]
    colour = random.uniform(0.3, 1.0, (count, 3, 1, 1))
    stripes = colour * np.sign(np.sin(wave * (x * np.cos(angle) + y * np.sin(angle)) + phase))
    return stripes.astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> Model:
    return trained_on(network(), gratings(256))


def test_the_mismatch_falls_and_pixels_stay_in_their_range(trained: Model) -> None:
    made = make_samples(trained, SampleOptions(count=64))
    refined = refine_samples(trained, made, QUICK)
    assert refined.refinement is not None
    assert refined.refinement.passes == 30
    before, after = refined.refinement.mismatch
    assert made.mismatch is not None
    assert before == pytest.approx(made.mismatch[1], rel=1e-3)
    assert after < before / 2
    old, new = values(made), values(refined)
    assert np.abs(new - old).mean() > 0.02 * old.std()
    for channel in range(3):
        assert new[:, channel].min() >= old[:, channel].min() - 1e-5
        assert new[:, channel].max() <= old[:, channel].max() + 1e-5


def test_the_same_samples_are_refined_to_the_same(trained: Model) -> None:
    made = make_samples(trained, SampleOptions(count=40))
    one, two = (values(refine_samples(trained, made, QUICK)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    other = make_samples(trained, SampleOptions(count=40, seed=1))
    assert np.abs(values(refine_samples(trained, other, QUICK)) - one).mean() > 0.01


def test_more_work_brings_more(trained: Model) -> None:
    made = make_samples(trained, SampleOptions(count=64))
    some, more = (refine_samples(trained, made, replace(QUICK, passes=passes)).refinement for passes in (9, 60))
    assert some is not None
    assert more is not None
    assert more.mismatch[1] < some.mismatch[1]


def test_every_step_is_told(trained: Model) -> None:
    told: list[tuple[int, int]] = []
    made = make_samples(trained, SampleOptions(count=160, candidates=1))
    refine_samples(trained, made, replace(QUICK, passes=6), lambda done, total: told.append((done, total)))
    assert told == [(at, 4) for at in range(4)]  # two batches of two steps


def test_a_file_that_takes_one_at_a_time_is_refined_in_larger_batches() -> None:
    proto = network()
    one = trained_on(proto, gratings(256))
    one.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    one.proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed = load(one.proto)
    refined = refine_samples(fixed, make_samples(fixed, SampleOptions(count=64)), QUICK)
    assert refined.refinement is not None
    assert refined.refinement.mismatch[1] < refined.refinement.mismatch[0] / 2


def test_where_nothing_is_remembered_samples_stay_and_it_is_said() -> None:
    plain = load(block(norm=False))
    made = make_samples(plain, SampleOptions(count=16))
    refined = refine_samples(plain, made, QUICK)
    assert refined.source is made.source
    assert refined.refinement is None
    assert "not refined" in refined.knowledge


def test_whole_numbers_are_not_refined() -> None:
    text = """(uint8[n, 3, 8, 8] image) => (float[] y) {
        a = Cast <to = 1> (image)
        b = Conv (a, w)
        y = BatchNormalization (b, scale, shift, mean, variance)
    }"""
    vectors = {name: np.ones(4, np.float32) for name in ("scale", "shift", "mean", "variance")}
    whole = load(model(text, {"w": (4, 3, 3, 3)}, **vectors))
    made = make_samples(whole, SampleOptions(count=16))
    assert refine_samples(whole, made, QUICK).source is made.source


def test_less_than_a_step_is_refused() -> None:
    with pytest.raises(UsageError, match="less than one step"):
        RefineOptions(passes=2)
