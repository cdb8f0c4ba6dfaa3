# SPDX-License-Identifier: Apache-2.0
"""One elimination gives what the best refit loses at every width, exactly as solving each of them anew would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.evidence import elimination
from graphprune.evidence.elimination import Elimination, backward_elimination
from graphprune.evidence.present_network import closed_form
from graphprune.solvers.protocols.reading import Reading

RIDGE = 1e-3


def reading(seed: int, atoms: int, taps: int, outputs: int = 3) -> Reading:
    """Return a consumer whose atoms own columns that do not stand together, some of them nearly copies of others."""
    rng = np.random.default_rng(seed)
    columns = atoms * taps
    rows = rng.standard_normal((4 * columns, columns)) @ rng.standard_normal((columns, columns))
    rows[:, 0] = rows[:, -1] + 0.01 * rows[:, 0]
    own = rng.permutation(columns).reshape(atoms, taps)
    return Reading(np.cov(rows.T, bias=True).reshape(columns, columns), rng.standard_normal((columns, outputs)), own)


def lost(one: Reading, kept: np.ndarray) -> float:
    """Return what the best refit on the columns of some atoms loses, solved from scratch."""
    gram = one.gram + RIDGE * np.trace(one.gram) / len(one.gram) * np.eye(len(one.gram))
    own = one.columns[kept].ravel()
    best = np.zeros_like(one.weight)
    best[own] = np.linalg.solve(gram[np.ix_(own, own)], gram[own] @ one.weight)
    away = best - one.weight
    return float(np.trace(away.T @ gram @ away) / np.trace(one.weight.T @ one.gram @ one.weight))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    atoms=st.integers(2, 7),
    taps=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    panel=st.integers(1, 12),
)
def test_the_closed_form_is_what_solving_every_width_gives(seed: int, atoms: int, taps: list[int], panel: int) -> None:
    readings = [reading(seed + at, atoms, own) for at, own in enumerate(taps)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elimination, "_PANEL", panel)  # columns that are gathered before they are subtracted
        curve = closed_form(backward_elimination(readings, RIDGE), np.arange(atoms))
    for width in range(atoms + 1):
        kept = curve.kept(width)
        assert curve.errors[width] == pytest.approx(sum(lost(one, kept) for one in readings), rel=2e-3, abs=1e-9)
    assert curve.widths.tolist() == list(range(atoms + 1)) and (np.diff(curve.errors) <= 0).all()


def test_each_step_removes_what_costs_least() -> None:
    for seed in range(5):
        one = reading(seed, 6, 2)
        order = backward_elimination([one], RIDGE).order
        for gone in range(5):
            there = np.sort(order[gone:])
            costs = {atom: lost(one, there[there != atom]) for atom in there.tolist()}
            assert costs[int(order[gone])] == pytest.approx(min(costs.values()))


def test_a_curve_has_the_numbers_of_the_dense_network() -> None:
    found = closed_form(Elimination(np.array([2, 0, 1]), np.array([0.5, 1.0, 4.0])), np.array([3, 5, 9]))
    assert found.order.tolist() == [9, 3, 5]
    assert found.widths.tolist() == [0, 1, 2, 3] and found.errors.tolist() == [5.5, 1.5, 0.5, 0.0]
