# SPDX-License-Identifier: Apache-2.0
"""The path agrees with coordinate descent at many penalties, also where variables leave again or depend on others."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from graphprune.solvers.criteria._lasso import _Path, lasso_entries


def data(seed: int, variables: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((variables, variables)) + 2 * rng.standard_normal(variables)[:, None]
    return rng.standard_normal((rows, variables)) @ mixing, rng.standard_normal(rows)


@pytest.mark.parametrize("seed", range(8))
def test_weights_along_the_path_are_those_of_the_lasso(seed: int) -> None:
    x, y = data(seed, 7)
    path = _Path(x.T @ x, x.T @ y)
    steps = 0
    while path.step():
        steps += 1
        lasso = Lasso(path._penalty / len(x), fit_intercept=False, tol=1e-12, max_iter=1_000_000).fit(x, y)
        np.testing.assert_allclose(path._weights, lasso.coef_, atol=1e-5 * np.abs(lasso.coef_).max())
    assert steps >= 6
    np.testing.assert_allclose(path._weights, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-6)


def test_variables_that_leave_keep_their_first_entry() -> None:
    left = 0
    for seed in range(40):
        x, y = data(seed, 7)
        path, known = _Path(x.T @ x, x.T @ y), np.zeros(7)
        while path.step():
            assert (path.entered[known > 0] == known[known > 0]).all()
            known = path.entered.copy()

        assert (known > 0).all()
        left += path._left
    assert left > 0


def test_a_copy_or_a_sum_of_others_does_not_enter() -> None:
    x, y = data(3, 4)
    more = np.concatenate([x, x[:, [1]], x[:, [0]] + x[:, [2]]], axis=1)
    found = lasso_entries(more.T @ more, more.T @ y)
    assert (found > 0).sum() == 4
    assert found[1] > 0 and found[4] == 0


def test_nothing_to_explain() -> None:
    assert not lasso_entries(np.zeros((3, 3)), np.zeros(3)).any()
    assert not lasso_entries(np.eye(3), np.zeros(3)).any()
    assert lasso_entries(np.diag([2.0, 0.0]), np.array([1.0, 0.0])).tolist() == [1.0, 0.0]


def test_a_large_one() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((900, 300)) @ rng.standard_normal((300, 300))
    gram = x.T @ x / len(x)
    found = lasso_entries(gram, gram.sum(axis=1))
    assert (found > 0).all()
