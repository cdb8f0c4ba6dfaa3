# SPDX-License-Identifier: Apache-2.0
"""Tables of measured times: grids of lengths, made monotone, and read between their points.

Among the widths that runtimes like, time goes in steps: a kernel works on blocks of channels, and a block that is begun
costs as much as a whole one. So grids consist of whole blocks, and a length is rounded up to whole blocks before the
table is read; between grid points times are interpolated linearly. A wider layer is never said to be faster: where it
was measured so, the two are evened out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.array_types import Floats, Ints


__all__ = ["Tables", "grid", "monotone", "step_of"]

_QUARTERS = 4
_FINE = 4  # channels, the least that fast kernels work on
_GRAIN = 1e-6  # nanoseconds; keeps what is equal but for rounding from falling


def step_of(full: int, block: int) -> int:
    """Return the step in which the time of an axis of this full length goes."""
    return block if full >= 2 * block else _FINE if full >= 2 * _FINE else 1


def grid(full: int, block: int) -> Ints:
    """Return the lengths at which an axis is measured, ascending: a single step, quarters of whole steps, all.

    Examples
    --------
    >>> grid(512, 16).tolist()
    [16, 128, 256, 384, 512]
    >>> grid(24, 16).tolist()
    [4, 8, 12, 20, 24]
    """
    step = step_of(full, block)
    quarters = [-(-full * part // _QUARTERS // step) * step for part in range(1, _QUARTERS)]
    return np.unique(np.minimum([step, *quarters, full], full)).astype(np.int64)


def monotone(times: Floats) -> Floats:
    """Return times that fall along no axis: the middle of the least such ones above and the greatest below.

    Parameters
    ----------
    times : ndarray of float64
        One axis for each feature, lengths ascending.
    """
    upper, lower = times, times
    for axis in range(times.ndim):
        upper = np.maximum.accumulate(upper, axis=axis)
        lower = np.flip(np.minimum.accumulate(np.flip(lower, axis), axis=axis), axis)
    result: Floats = (upper + lower) / 2
    return result


class Tables:
    """Many tables over two lengths each, read at once.

    Parameters
    ----------
    grids : sequence of (ndarray of int64, ndarray of int64)
        For each table, the lengths along both axes; a single one where it does not depend on the second.
    steps : sequence of (int, int)
        Of both axes.
    times : sequence of ndarray of float64
        Monotone, shape as the grids say.
    """

    def __init__(
        self, grids: Sequence[tuple[Ints, Ints]], steps: Sequence[tuple[int, int]], times: Sequence[Floats]
    ) -> None:
        count = len(grids)
        most = max((len(axis) for pair in grids for axis in pair), default=1)
        self._lengths = np.ones((count, 2, most), dtype=np.int64)
        self._times = np.zeros((count, most, most), dtype=np.float64)
        self._steps = np.array(steps, dtype=np.int64).reshape(count, 2)
        for at, (pair, values) in enumerate(zip(grids, times, strict=True)):
            for axis, lengths in enumerate(pair):  # what is beyond the end repeats it, and is never reached
                self._lengths[at, axis] = np.pad(lengths, (0, most - len(lengths)), mode="edge")
            pads = [(0, most - size) for size in values.shape]
            self._times[at] = np.pad(values, pads, mode="edge")

    def values(self, at: int, first: Ints, second: Ints) -> Floats:
        """Return the times of one table for many lengths, arrays that broadcast."""
        one, other = np.broadcast_arrays(first, second)
        lengths = np.stack([one.ravel(), other.ravel()], axis=1)
        return self.read(lengths, np.full(len(lengths), at)).reshape(one.shape).astype(np.float64)

    def read(self, lengths: Ints, at: Ints | None = None) -> Ints:
        """Return the times of tables, rounded down; no time where a length is 0, for what works on nothing goes.

        Parameters
        ----------
        lengths : ndarray of int64, shape (tables, 2)
        at : ndarray of int64, optional
            Which tables; all by default.
        """
        chosen = np.arange(len(self._times)) if at is None else at
        grids, steps = self._lengths[chosen], self._steps[chosen]
        whole = np.clip(-(-lengths // steps) * steps, grids[:, :, 0], grids[:, :, -1])
        below = np.clip((grids <= whole[:, :, None]).sum(axis=2) - 1, 0, None)
        above = np.minimum(below + 1, grids.shape[2] - 1)
        low = np.take_along_axis(grids, below[:, :, None], 2)[:, :, 0]
        span = np.take_along_axis(grids, above[:, :, None], 2)[:, :, 0] - low
        share = np.where(span > 0, (whole - low) / np.maximum(span, 1), 0.0)
        rows, first, second = np.arange(len(chosen)), share[:, 0], share[:, 1]
        times = self._times[chosen]
        left = times[rows, below[:, 0], below[:, 1]] * (1 - first) + times[rows, above[:, 0], below[:, 1]] * first
        right = times[rows, below[:, 0], above[:, 1]] * (1 - first) + times[rows, above[:, 0], above[:, 1]] * first
        rounded: Ints = np.floor(left * (1 - second) + right * second + _GRAIN).astype(np.int64)
        return np.where((lengths > 0).all(axis=1), rounded, 0)
