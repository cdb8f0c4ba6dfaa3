# SPDX-License-Identifier: Apache-2.0
"""The properties that the refit and the elimination must have, against explicit least squares and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.data.moments import Moments, MomentSummary
from graphprune.evidence.elimination import Reading, backward_elimination
from graphprune.recovery.least_squares import intercept, refit, rescaled


def summary(x: np.ndarray, y: np.ndarray) -> MomentSummary:
    moments = Moments()
    moments.add(x[None].astype(np.float32), y[None].astype(np.float32))
    return moments.summary()


def data(rows: int = 4000, columns: int = 12, outputs: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)) @ rng.standard_normal((columns, columns)) + rng.standard_normal(columns)
    weight = rng.standard_normal((columns, outputs))
    return x, weight


def test_the_error_formula_is_the_measured_error() -> None:
    x, weight = data()
    y = x @ weight + np.random.default_rng(1).standard_normal((len(x), weight.shape[1]))
    found = summary(x, y)
    kept = np.arange(12) < 7
    part = found.of(kept)
    new = refit(part, weight[None, kept], 1e-8)
    residual = y - x[:, kept] @ new[0] - intercept(part, new)[0]
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(part.errors(new)[0], np.square(residual).mean(axis=0), rtol=1e-4)
    explicit, *_ = np.linalg.lstsq(np.c_[x[:, kept], np.ones(len(x))], y, rcond=None)
    np.testing.assert_allclose(new[0], explicit[:-1], rtol=1e-3, atol=1e-3)


def test_nothing_is_lost_where_removed_columns_follow_from_kept_ones() -> None:
    x, weight = data()
    x[:, 8:] = x[:, :8] @ np.random.default_rng(2).standard_normal((8, 4)) + 3
    y = x @ weight + 1
    kept = np.arange(12) < 8
    part = summary(x, y).of(kept)
    new = refit(part, weight[None, kept], 1e-9)
    assert part.errors(new).max() < 1e-6 * part.yy.max()


def test_nothing_changes_where_nothing_was_lost() -> None:
    x, weight = data()
    found = summary(x, x @ weight)
    np.testing.assert_allclose(refit(found, weight[None], 1e-3)[0], weight, atol=2e-3)


def test_dead_inputs_keep_their_weights() -> None:
    x, weight = data()
    x[:, 3] = 2.0
    found = summary(x, x @ weight)
    np.testing.assert_allclose(refit(found, weight[None], 1e-3)[0, 3], weight[3], atol=1e-4)
    nothing = summary(np.zeros((10, 4)), np.zeros((10, 2)))
    np.testing.assert_array_equal(refit(nothing, np.ones((1, 4, 2)), 1e-3), np.ones((1, 4, 2)))


def test_small_systems_at_once() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 200, 9)).astype(np.float32)
    x[4] = 0
    weight = rng.standard_normal((6, 9, 1))
    moments = Moments()
    moments.add(x, (x @ (weight + 0.5)).astype(np.float32))
    new = refit(moments.summary(), weight, 1e-9)
    live = [0, 1, 2, 3, 5]
    np.testing.assert_allclose(new[live], weight[live] + 0.5, atol=1e-4)
    np.testing.assert_array_equal(new[4], weight[4])


def test_rescaling_restores_the_variance() -> None:
    x, weight = data()
    y = x @ weight
    part = summary(x, y).of(np.arange(12) < 6)
    new = rescaled(part, refit(part, weight[None, :6], 1e-3))
    variance = np.einsum("do,do->o", part.xx[0] @ new[0], new[0])
    np.testing.assert_allclose(variance, part.yy[0], rtol=1e-6)


def best_error(gram: np.ndarray, weight: np.ndarray, kept: np.ndarray) -> float:
    """Return the error of the best weights on some columns, computed from scratch."""
    cross = gram @ weight
    solution = np.linalg.solve(gram[np.ix_(kept, kept)], cross[kept])
    return float(np.trace(weight.T @ cross) - np.sum(cross[kept] * solution))


@pytest.mark.parametrize("taps", [1, 3])
def test_elimination_is_greedy_and_its_costs_are_exact(taps: int) -> None:
    atoms = 6
    x, weight = data(columns=atoms * taps)
    gram = np.cov(x.T, bias=True)
    columns = np.arange(atoms * taps).reshape(atoms, taps)
    ridge = 1e-9
    found = backward_elimination([Reading(gram, weight, columns)], ridge)
    ridged = gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    norm = float(np.trace(weight.T @ gram @ weight))
    live, error = list(range(atoms)), 0.0
    for atom, cost in zip(found.order.tolist(), found.costs.tolist(), strict=True):
        trials = {gone: [at for at in live if at != gone] for gone in live}
        errors = {gone: best_error(ridged, weight, columns[rest].ravel()) for gone, rest in trials.items()}
        assert atom == min(errors, key=lambda gone: errors[gone])
        assert cost == pytest.approx((errors[atom] - error) / norm, rel=1e-5, abs=1e-9)
        live, error = trials[atom], errors[atom]
    assert (found.costs >= 0).all()
    assert found.kept(2).tolist() == sorted(found.order[-2:].tolist())


def test_a_copy_goes_first_and_readers_are_added() -> None:
    x, weight = data()
    x[:, 7] = x[:, 2]
    gram = np.cov(x.T, bias=True)
    columns = np.arange(12)[:, None]
    assert backward_elimination([Reading(gram, weight, columns)]).order[0] in (2, 7)
    silent = weight.copy()
    silent[4] = 0
    both = backward_elimination([Reading(np.eye(12), silent, columns), Reading(np.eye(12), silent, columns)])
    assert both.order[0] == 4
