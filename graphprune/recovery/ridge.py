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
    from collections.abc import Mapping, Sequence

    from graphprune.array_types import Floats, Ints

    Bools = npt.NDArray[np.bool_]
    Rows = npt.NDArray[np.float32]

__all__ = ["SplitMoments", "best_ridge", "halved"]

_MOST_COLUMNS = 4608
"""Of longer rows only one set of second moments fits well into memory; there is nothing to compare then."""
_STRETCH = 32  # samples, at most
_FEWEST_STRETCHES = 8
_STRONGEST = 100.0
"""With so strong a pull weights hardly move. A ridge is relative to the mean variance of what is read, and few samples
may not even say how the strongest components of it are to be weighed."""
_FINE = 10**0.5
_ALIKE = 0.01
"""Errors that differ by less than this share say nothing of which ridge is better."""
_DECIMALS = 4  # of logarithms: what lies beyond them is rounding
_EXACT = 1e-4
"""An error below this share of an output's variance is as good as none."""


def halved(batches: Sequence[Ints], together: int) -> list[Bools]:
    """Return, for every batch, which of its samples are in the second of two halves.

    The halves take turns in stretches of samples that come one after the other, so that what was seen right after each
    other is on one side. Copies of a sample always are.

    Parameters
    ----------
    batches : sequence of ndarray of int64
        The numbers of their samples.
    together : int
        So many samples, from one of which the number is a multiple, are copies of each other.
    """
    count = 1 + max(int(batch.max()) for batch in batches) // together
    stretch = together * max(1, min(_STRETCH, count // _FEWEST_STRETCHES))
    return [batch // stretch % 2 == 1 for batch in batches]


class SplitMoments:
    """Accumulates moments of two halves of the samples.

    Parameters
    ----------
    halves : sequence of ndarray of bool
        For every batch that will be added, which of its samples are in the second half (:func:`halved`).
    """

    def __init__(self, halves: Sequence[Bools]) -> None:
        self._halves = Moments(), Moments()
        self._second = halves
        self._turn = 0
        self._used = [False, False]

    def add(self, x: Rows, y: Rows) -> None:
        """Add rows of the next batch as :meth:`Moments.add` does; those of one sample stand together."""
        second = self._second[self._turn]
        self._turn += 1
        if x.shape[2] > _MOST_COLUMNS or x.shape[1] % len(second):
            second = np.zeros(1, dtype=np.bool_)
        rows = np.repeat(second, x.shape[1] // len(second))
        for half, own in enumerate((~rows, rows)):
            if own.any():
                self._used[half] = True
                self._halves[half].add(*((x, y) if own.all() else (x[:, own], y[:, own])))

    @property
    def whole(self) -> MomentSummary:
        """The moments of all rows."""
        parts = self.parts
        return merged(*parts) if len(parts) > 1 else parts[0]

    @property
    def parts(self) -> tuple[MomentSummary, ...]:
        """The moments of both halves, or of all rows where they were not divided."""
        return tuple(half.summary() for half, used in zip(self._halves, self._used, strict=True) if used)


def best_ridge(parts: tuple[MomentSummary, ...], weight: Floats, least: float, *, centred: bool = True) -> float:
    """Return the ridge for a refit on both halves; the least where nothing can be compared.

    That is half of the ridge with which a refit on one half is best on the other, since what samples leave open shrinks
    with their number. Ridges grow tenfold until the error rises, and of the weakest that is about as good as the best,
    a third is tried as well. Outputs count alike, whatever their scale.

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
    decades = max(0, int(np.floor(np.log10(_STRONGEST / least) + 1e-9)))
    tried: dict[float, float] = {}
    for ridge in (least * 10.0 ** np.arange(1 + decades)).tolist():
        tried[ridge] = _crossed(parts, weight, ridge, centred=centred)
        if tried[ridge] > min(tried.values()) + _ALIKE:  # on a plateau it goes on: it may fall again behind it
            break
    best = _weakest(tried)
    if best > least:
        tried[best / _FINE] = _crossed(parts, weight, best / _FINE, centred=centred)
    return max(least, _weakest(tried) / 2)


def _weakest(tried: Mapping[float, float]) -> float:
    """Return the weakest ridge that is about as good as the best."""
    return min(ridge for ridge, error in tried.items() if not error > min(tried.values()) + _ALIKE)


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
