# SPDX-License-Identifier: Apache-2.0
"""How strongly a refit is pulled towards the present weights is what one half of the samples says of the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.data.moments import Moments, MomentSummary, merged
from graphprune.recovery.least_squares import intercept, refit
from graphprune.recovery.ridge import SplitMoments, best_ridge, halved

LEAST = 1e-3


def moments(x: np.ndarray, y: np.ndarray) -> MomentSummary:
    found = Moments()
    found.add(x, y)
    return found.summary()


def data(samples: int, columns: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, targets and weights from which the best ones differ by about as much as the noise."""
    rng = np.random.default_rng(seed)
    true = rng.standard_normal((1, columns, 5)) / np.sqrt(columns)
    present = true + 0.3 * rng.standard_normal(true.shape) / np.sqrt(columns)
    x = (rng.standard_normal((1, samples, columns)) + 1).astype(np.float32)
    y = (x @ true + noise * rng.standard_normal((1, samples, 5)) + 2).astype(np.float32)
    return x, y, present


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_halves_together_are_the_whole(samples: int, columns: int, seed: int) -> None:
    x, y, _ = data(samples, columns, 0.5, seed)
    halves = SplitMoments(halved([np.arange(samples)], 1))
    halves.add(x, y)
    whole, found = moments(x, y), merged(*halves.parts)
    assert found.count == whole.count
    for name in ("x_mean", "y_mean", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-4)


def test_a_sample_lies_in_one_half() -> None:
    rows = np.repeat(np.arange(5), 4).astype(np.float32)[None, :, None]  # five samples of four rows each
    halves = SplitMoments([np.array([False, False, True, True, True])])
    halves.add(rows, rows)
    assert [part.count for part in halves.parts] == [8, 12]
    assert [float(part.x_mean[0, 0]) for part in halves.parts] == [0.5, 3.0]


def test_samples_that_come_one_by_one_take_turns() -> None:
    batches = [np.array([number]) for number in range(4)]
    halves = SplitMoments(halved(batches, 1))
    for value in range(4):
        halves.add(np.full((1, 3, 1), value, np.float32), np.ones((1, 3, 1), np.float32))
        assert len(halves.parts) == min(value + 1, 2)
    assert [float(part.x_mean[0, 0]) for part in halves.parts] == [1.0, 2.0]


@pytest.mark.parametrize("size", [1, 3, 7, 64])
@pytest.mark.parametrize("together", [1, 2, 4])
def test_copies_of_a_sample_are_on_one_side_whatever_the_batches(size: int, together: int) -> None:
    count = 100 * together
    batches = [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
    second = np.concatenate(halved(batches, together)).reshape(-1, together)
    assert (second == second[:, :1]).all()
    assert 0.3 < second.mean() < 0.7
    neighbours = second[1:, 0] == second[:-1, 0]
    assert neighbours.mean() > 0.9  # so what was seen right after each other is on one side


def test_rows_that_belong_to_no_single_sample_are_in_the_first_half() -> None:
    x, y, _ = data(7, 3, 0.5, 0)
    halves = SplitMoments(halved([np.arange(2)], 1))
    halves.add(x, y)
    assert [part.count for part in halves.parts] == [7]


def test_nothing_is_compared_where_two_sets_of_moments_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.recovery.ridge._MOST_COLUMNS", 3)
    x, y, present = data(20, 4, 1.0, 0)
    halves = SplitMoments(halved([np.arange(20)], 1))
    halves.add(x, y)
    assert len(halves.parts) == 1
    assert best_ridge(halves.parts, present, LEAST) == LEAST


@pytest.mark.parametrize("seed", range(3))
def test_many_samples_need_no_pull(seed: int) -> None:
    x, y, present = data(4000, 20, 0.05, seed)
    parts = moments(x[:, ::2], y[:, ::2]), moments(x[:, 1::2], y[:, 1::2])
    assert best_ridge(parts, present, LEAST) < 5 * LEAST


@pytest.mark.parametrize("seed", range(3))
def test_few_samples_need_a_strong_pull(seed: int) -> None:
    x, y, present = data(60, 80, 0.3, seed)
    parts = moments(x[:, ::2], y[:, ::2]), moments(x[:, 1::2], y[:, 1::2])
    ridge = best_ridge(parts, present, LEAST)
    assert ridge > 10 * LEAST
    unseen = moments(*data(4000, 80, 0.3, seed)[:2])
    whole = moments(x, y)

    def error(ridge: float) -> float:
        new = refit(whole, present, ridge)
        return float((unseen.errors(new) + (intercept(unseen, new) - intercept(whole, new)) ** 2).mean())

    assert error(ridge) < 0.8 * error(LEAST)


@pytest.mark.parametrize("samples", [12, 40])
def test_samples_that_say_next_to_nothing_hardly_move_weights(samples: int) -> None:
    rng = np.random.default_rng(samples)
    x, y, present = data(samples, 200, 3.0, 0)  # nearly all of what the present weights leave is noise
    y = (y + rng.standard_normal(y.shape)).astype(np.float32)
    parts = moments(x[:, ::2], y[:, ::2]), moments(x[:, 1::2], y[:, 1::2])
    assert best_ridge(parts, present, LEAST) > 0.5


@given(st.lists(st.floats(-3, 3), min_size=5, max_size=5), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_the_scale_of_outputs_means_nothing(powers: list[float], seed: int) -> None:
    x, y, present = data(60, 40, 0.3, seed)
    scale = 10 ** np.array(powers)
    found = [
        best_ridge((moments(x[:, ::2], each[:, ::2]), moments(x[:, 1::2], each[:, 1::2])), weight, LEAST)
        for each, weight in ((y, present), ((y * scale).astype(np.float32), present * scale))
    ]
    assert found[0] == found[1]


def test_an_output_that_never_changes_has_no_say() -> None:
    x, y, present = data(60, 40, 0.3, 0)
    parts = moments(x[:, ::2], y[:, ::2]), moments(x[:, 1::2], y[:, 1::2])
    y, present = np.insert(y, 2, 7.0, axis=2), np.insert(present, 2, 0.0, axis=2)
    wider = moments(x[:, ::2], y[:, ::2]), moments(x[:, 1::2], y[:, 1::2])
    assert best_ridge(wider, present, LEAST) == best_ridge(parts, np.delete(present, 2, axis=2), LEAST)
    nothing = moments(x, np.ones_like(y))
    assert best_ridge((nothing, nothing), present * 0, LEAST) == LEAST
