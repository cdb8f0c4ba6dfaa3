# SPDX-License-Identifier: Apache-2.0
"""Forward selection agrees with the greedy choice by brute force, and its errors with what a refit really leaves."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.solvers.criteria._forward import forward_selection
from graphprune.solvers.protocols.reading import Reading

RIDGE = 1e-9


def reading(atoms: int, taps: int, outputs: int, seed: int, rows: int = 400) -> tuple[Reading, np.ndarray]:
    """Return a reading of correlated inputs with shuffled columns, and the centred inputs themselves."""
    rng = np.random.default_rng(seed)
    size = atoms * taps
    x = rng.standard_normal((rows, size)) @ rng.standard_normal((size, size))
    x -= x.mean(axis=0)
    columns = rng.permutation(size).reshape(atoms, taps)
    return Reading(x.T @ x / rows, rng.standard_normal((size, outputs)), columns), x


def error(reading: Reading, chosen: list[int], ridge: float = RIDGE) -> float:
    """Return what the best refit to some atoms leaves, relative to the variance, by solving for it."""
    gram = reading.gram + ridge * np.trace(reading.gram) / len(reading.gram) * np.eye(len(reading.gram))
    whole = float(np.trace(reading.weight.T @ gram @ reading.weight))
    own = reading.columns[chosen].ravel().astype(np.int64)
    cross = gram[own] @ reading.weight
    explained = np.trace(cross.T @ np.linalg.solve(gram[np.ix_(own, own)], cross)) if len(own) else 0.0
    return (whole - float(explained)) / whole


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("consumers", [1, 2])
def test_the_order_is_that_of_a_greedy_search(taps: int, consumers: int) -> None:
    readings = [reading(6, taps, 4 + seed, seed)[0] for seed in range(consumers)]
    found = forward_selection(readings, RIDGE)
    chosen: list[int] = []
    for step in range(6):
        rest = [atom for atom in range(6) if atom not in chosen]
        totals = [sum(error(one, [*chosen, atom]) for one in readings) for atom in rest]
        assert found.errors[step] == pytest.approx(sum(error(one, chosen) for one in readings), abs=1e-8)
        chosen.append(rest[int(np.argmin(totals))])
    assert found.order.tolist() == chosen
    assert found.errors[0] == pytest.approx(consumers)
    assert found.errors[-1] == pytest.approx(0, abs=1e-8)
    assert (np.diff(found.errors) <= 0).all()


def test_errors_are_those_of_the_refit_on_the_data() -> None:
    one, x = reading(5, 2, 3, 7)
    found = forward_selection([one], RIDGE)
    wanted = x @ one.weight
    for width in range(1, 5):
        own = one.columns[found.order[:width]].ravel()
        refit, *_ = np.linalg.lstsq(x[:, own], wanted, rcond=None)
        left = np.square(wanted - x[:, own] @ refit).sum() / np.square(wanted).sum()
        assert found.errors[width] == pytest.approx(left, rel=1e-5)


def test_what_others_can_rebuild_comes_last() -> None:
    one, x = reading(5, 1, 4, 3)
    copies = np.concatenate([x, x[:, [1]], x[:, [0]] - 2 * x[:, [3]]], axis=1)
    gram = copies.T @ copies / len(x)
    weight = np.concatenate([one.weight, np.zeros((2, 4))])
    found = forward_selection([Reading(gram, weight, np.arange(7)[:, None])], RIDGE)
    assert found.errors[5] == pytest.approx(0, abs=1e-6)


def test_of_equal_atoms_the_first_is_chosen() -> None:
    x = np.random.default_rng(0).standard_normal((50, 2))
    x = x[:, [0, 1, 0, 1]]
    twin = Reading(x.T @ x / 50, np.ones((4, 3)), np.arange(4)[:, None])
    order = forward_selection([twin], 1e-3).order.tolist()
    assert order.index(0) < order.index(2) and order.index(1) < order.index(3)


def test_a_consumer_that_reads_nothing_does_not_count() -> None:
    one, _ = reading(4, 1, 3, 5)
    dead = Reading(np.zeros((4, 4)), one.weight, one.columns)
    alone = forward_selection([dead], 1e-3)
    assert alone.order.tolist() == [0, 1, 2, 3] and not alone.errors.any()
    both, single = forward_selection([one, dead], 1e-3), forward_selection([one], 1e-3)
    np.testing.assert_allclose(both.errors, single.errors)
