# SPDX-License-Identifier: Apache-2.0
"""How far two tensors are apart, and how far rounding may move them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphprune.array_types import Array
from graphprune.verification.limits import RELATIVE

__all__ = ["FEW", "FLOOR_FACTOR", "WIDEST", "deviation", "few", "share_of_usual", "stepped", "tolerance"]

FLOOR_FACTOR = 10.0
WIDEST = 1e-3
"""No measured floor may excuse more than this (in the precision of float32)."""
FEW = 0.01
"""Share of rounded values that may fall on the other side of a tie, where a tensor has some hundred steps."""
_NEAR_A_TIE = 1e-5


def deviation(expected: Array, actual: Array) -> float:
    """Largest difference relative to the largest absolute value; inf where shapes or non-finite places differ."""
    if expected.shape != actual.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    quick = _plain_deviation(expected, actual)
    if quick is not None:
        return quick
    finite = np.isfinite(expected)
    if not finite.all():
        if not np.array_equal(finite, np.isfinite(actual)):
            return float("inf")
        expected, actual = expected[finite], actual[finite]
        if not expected.size:
            return 0.0
    scale = float(np.abs(expected.astype(np.float64)).max())
    error = float(np.abs(expected.astype(np.float64) - actual).max())
    if not np.isfinite(error):
        return float("inf")
    return error / scale if scale > 0 else error


def _plain_deviation(expected: Array, actual: Array) -> float | None:
    """Return the deviation of floats without a detour over float64; None where something is not finite."""
    if expected.dtype != actual.dtype or expected.dtype not in (np.float32, np.float64):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        scale = max(float(expected.max()), -float(expected.min()))
        difference = expected - actual
        error = max(float(difference.max()), -float(difference.min()))
    if not (np.isfinite(scale) and np.isfinite(error)):
        return None
    return error / scale if scale > 0 else error


def share_of_usual(value: Array, another: Array) -> float:
    """Return how large a tensor is beside the larger of itself and of it on another draw of inputs.

    The few outputs of a classifier may all cancel to next to nothing on one draw, where the rounding of what was added
    up is large beside what is left of it; how large the tensor is elsewhere says what its rounding amounts to.
    """
    own, usual = (
        float(np.abs(x, where=np.isfinite(x), out=np.zeros_like(x)).max(initial=0.0)) for x in (value, another)
    )
    return min((own or 1.0) / max(own, usual, np.finfo(np.float64).tiny), 1.0)


def stepped(expected: Array, actual: Array) -> float:
    """Return the share of rounded values that differ, which they may by one step; inf where one differs by more.

    A step is 1 for integers and whole floats, more where these are so large that floats before were further apart.
    Floats that were rounded to a coarser grid may be a quarter apart.
    """
    if expected.shape != actual.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    apart = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    whole = expected.dtype.kind != "f" or bool((expected == np.rint(expected)).all())
    largest = float(np.abs(expected.astype(np.float64)).max())
    furthest = max(1.0, RELATIVE * largest) if whole else largest / 4
    if not float(apart.max()) <= furthest:
        return float("inf")
    moved = int((apart > (0.0 if whole else RELATIVE * largest)).sum())
    return 0.0 if moved <= 1 else moved / expected.size


def few(expected: Array) -> float:
    """Return the share of rounded values that may differ: the finer the grid, the more of them are next to a tie."""
    steps = float(np.abs(expected.astype(np.float64)).max()) if expected.size else 0.0
    return min(max(FEW, _NEAR_A_TIE * steps), 1.0)


def tolerance(dtype: np.dtype[Any], noise: float, grain: float = 0.0, relative: float = RELATIVE) -> float:
    """Return what rounding may explain for a tensor whose noise floor was measured.

    Parameters
    ----------
    grain : float
        Relative precision of the coarsest float type on the way to the tensor.
    relative : float
        What counts as rounding in float32, whatever the noise.
    """
    eps = max(float(np.finfo(dtype).eps), grain) if dtype.kind == "f" else grain
    unit = math.sqrt(max(eps / float(np.finfo(np.float32).eps), 1.0))
    return min(max(relative * unit, FLOOR_FACTOR * noise), WIDEST * unit)
