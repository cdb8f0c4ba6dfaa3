# SPDX-License-Identifier: Apache-2.0
"""Allocation stays within the limit and comes close to the best of all choices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from solver_cases import chain

from graphprune.recovery.allocation import allocate


@pytest.mark.parametrize("seed", range(6))
def test_within_the_limit_and_near_the_best(seed: int) -> None:
    sizes = [5, 6, 4, 5]
    cost = chain(sizes, seed)
    rng = np.random.default_rng(seed)
    levels = [np.arange(1, size + 1, dtype=np.int64) for size in sizes]
    errors = [np.append(np.sort(rng.exponential(size=size - 1))[::-1], 0.0) for size in sizes]
    for share in (0.35, 0.6, 0.9):
        limit = int(share * cost(np.array(sizes)))
        found = allocate(errors, levels, cost, limit)
        assert found is not None
        assert cost(found) <= limit
        value = sum(e[w - 1] for e, w in zip(errors, found, strict=True))
        best = min(
            sum(e[w - 1] for e, w in zip(errors, widths, strict=True))
            for widths in itertools.product(*levels)
            if cost(np.array(widths)) <= limit
        )
        assert value <= 1.1 * best + 1e-9


def test_the_ends() -> None:
    sizes = [5, 6]
    cost = chain(sizes)
    levels = [np.arange(1, size + 1, dtype=np.int64) for size in sizes]
    errors = [np.linspace(1, 0, size) for size in sizes]
    full = cost(np.array(sizes))
    np.testing.assert_array_equal(allocate(errors, levels, cost, full), sizes)
    assert allocate(errors, levels, cost, cost(np.array([1, 1])) - 1) is None
