# SPDX-License-Identifier: Apache-2.0
"""The ridge: a penalty on how far a refit moves weights, here away from the present ones, in place of fitting samples.

Where a layer has more weights than the samples tell apart, least squares fits the samples and not the task, and a
stronger pull towards the present weights is better. How strong it is is chosen layer by layer: with each ridge that
comes into question the layer is refitted on one half of the samples and judged on the other; the weakest one that does
about as well there as the best is taken, divided by two since all samples together tell twice as much as a half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.data.moments import Moments, MomentSummary, merged
from graphprune.recovery.least_squares import intercept, refit

if TYPE_CHECKING:
    from graphprune.array_types import Floats

    Rows = npt.NDArray[np.float32]

__all__ = ["SplitMoments", "best_ridge"]

_MOST_COLUMNS = 4608
"""Of longer rows only one set of second moments fits well into memory; there is nothing to compare then."""
_STEP = 10**0.5
_DECADE = 3  # ridges from one to the tenfold
_STRONGEST = 1.0
_ALIKE = 0.01
"""Errors that differ by less than this share say nothing of which ridge is better."""
_DECIMALS = 4  # of logarithms: what lies beyond them is rounding
_EXACT = 1e-4
"""An error below this share of an output's variance is as good as none."""


class SplitMoments:
    """Accumulates moments of two halves of the samples.

    The samples of a batch that stand together go into the same half, so images of one scene are not on both sides.
    """

    def __init__(self) -> None:
        self._halves = Moments(), Moments()
        self._turn = 0
        self._divided = True

    def add(self, x: Rows, y: Rows, samples: int) -> None:
        """Add rows as :meth:`Moments.add` does, of a batch of so many samples; those of one sample stand together."""
        self._divided = x.shape[2] <= _MOST_COLUMNS
        if not self._divided:
            self._halves[0].add(x, y)
        elif samples < 2:
            self._halves[self._turn % 2].add(x, y)
            self._turn += 1
        else:
            middle = x.shape[1] // samples * (samples // 2)
            self._halves[0].add(x[:, :middle], y[:, :middle])
            self._halves[1].add(x[:, middle:], y[:, middle:])
            self._turn = 2

    @property
    def parts(self) -> tuple[MomentSummary, ...]:
        """The moments of both halves, or of all rows where they were not divided."""
        divided = self._divided and self._turn > 1
        return tuple(half.summary() for half in self._halves[: 2 if divided else 1])


def best_ridge(parts: tuple[MomentSummary, ...], weight: Floats, least: float, *, centred: bool = True) -> float:
    """Return the ridge for a refit on both halves; the least where nothing can be compared.

    That is half of the ridge with which a refit on one half is best on the other, since what samples leave open shrinks
    with their number. Ridges are tried in growing order for as long as they get better; the weakest of those that are
    about as good as the best is taken. Outputs count alike, whatever their scale.

    Parameters
    ----------
    weight : ndarray, shape (groups, columns, targets)
        The present weights.
    least : float
        The weakest ridge.
    centred : bool
        Whether the refit has an intercept.

    Complexity: O(columns^3) per group and ridge.
    """
    if len(parts) < 2:
        return least
    ridges = least * _STEP ** np.arange(1 + max(0, int(np.floor(np.log(_STRONGEST / least) / np.log(_STEP) + 1e-9))))
    tried: dict[float, float] = {}
    for ridge in ridges.tolist():
        error = _crossed(parts, weight, ridge, centred=centred)
        if tried and not error < min(tried.values()):
            break
        tried[ridge] = error
        last = list(tried.values())[-_DECADE:]
        if len(last) == _DECADE and last[0] - last[-1] < _ALIKE / 5:  # more of it would not bring enough either
            break
    best = next(ridge for ridge, error in tried.items() if not error > min(tried.values()) + _ALIKE)
    return max(least, best / 2)


def _crossed(parts: tuple[MomentSummary, ...], weight: Floats, ridge: float, *, centred: bool) -> float:
    """Return the mean logarithm of the relative errors of refits, each on the half that it has not seen."""
    yy = merged(*parts).yy
    live = yy > 0
    errors = np.zeros_like(yy)
    for fitted, held in (parts, parts[::-1]):
        new = refit(fitted, weight, ridge)
        errors += np.maximum(held.errors(new), 0.0) / 2
        if centred:
            errors += np.square(intercept(held, new) - intercept(fitted, new)) / 2
    if not live.any():
        return 0.0
    return round(float(np.log(errors[live] / yy[live] + _EXACT).mean()), _DECIMALS)
