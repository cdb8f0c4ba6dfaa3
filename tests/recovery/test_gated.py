# SPDX-License-Identifier: Apache-2.0
"""A refit that knows of the ReLU behind it is better there, and the same where the ReLU is never at work."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.calibrate.moments import Moments, Summary
from graphprune.recovery.gated import GatedRows, refit_gated
from graphprune.recovery.least_squares import intercept, refit


def problem(sign: float, threshold: float) -> tuple[Summary, np.ndarray, GatedRows, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3000, 8)).astype(np.float32)
    weight = rng.standard_normal((1, 8, 4))
    y = (x @ weight + 0.2).astype(np.float32)
    kept = x[:, :, :5]
    moments, rows = Moments(), GatedRows(np.full((1, 1, 4), sign, dtype=np.float32))
    for start in range(0, 3000, 1000):
        part = slice(start, start + 1000)
        moments.add(kept[:, part], y[:, part])
        rows.add(kept[:, part], y[:, part], np.full_like(y[:, part], threshold))
    return moments.summary(), weight[:, :5], rows, kept, y


def loss(x: np.ndarray, y: np.ndarray, weight: np.ndarray, shift: np.ndarray, gate: tuple[float, float]) -> float:
    """Return the error, in which an output that the gate must stop may be as far beyond it as it likes."""
    sign, threshold = gate
    given, wanted = sign * (x @ weight + shift[:, None]), sign * y
    bound = sign * threshold
    error = np.where(wanted > bound, given - wanted, np.maximum(given - bound, 0))
    return float(np.square(error).mean())


@pytest.mark.parametrize("gate", [(1.0, 0.0), (1.0, 0.7), (-1.0, 0.3)])
def test_every_round_lowers_the_error_behind_the_gate(gate: tuple[float, float]) -> None:
    moments, weight, rows, x, y = problem(*gate)
    found = [refit_gated(moments, weight, 1e-6, rows, rounds) for rounds in (0, 1, 3, 10)]
    losses = [loss(x, y, *each, gate) for each in found]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    plain = refit(moments, weight, 1e-6)
    np.testing.assert_allclose(found[0][0], plain)
    np.testing.assert_allclose(found[0][1], intercept(moments, plain))


def test_nothing_changes_where_everything_is_let_through() -> None:
    moments, weight, rows, *_ = problem(1.0, -1e3)
    new, shift = refit_gated(moments, weight, 1e-6, rows, 3)
    plain = refit(moments, weight, 1e-6)
    np.testing.assert_allclose(new, plain, atol=1e-4)
    np.testing.assert_allclose(shift, intercept(moments, plain), atol=1e-4)


def test_too_many_rows_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphprune.recovery.gated.MOST_BYTES", 100)
    *_, rows, _, _ = problem(1.0, 0.0)
    assert not rows.complete
    assert rows.x == []
