# SPDX-License-Identifier: Apache-2.0
"""Gated refit: where a ReLU follows, an output that must be zero may be as negative as it likes.

The target of such a row is what the present weights give, if that is below the threshold, and the threshold otherwise;
targets and weights are found in turn. Each round is a least squares problem with the same matrix, and lowers the error
that does not count how far below the threshold an output lies that must be below it (majorise and minimise). What is
cut off above, as by a ReLU6, has a second threshold, and is treated alike there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Floats
from graphprune.recovery.least_squares import Solver, intercept
from graphprune.reproducible import in_order

if TYPE_CHECKING:
    from graphprune.data.moments import MomentSummary

__all__ = ["GatedRows", "refit_gated"]

Rows = npt.NDArray[np.float32]

MOST_BYTES = 1 << 30
"""Rows are kept in memory up to here; a larger layer is refitted without looking at its ReLU."""


@dataclass
class GatedRows:
    """The rows of one site, kept because targets change from round to round.

    Attributes
    ----------
    sign : ndarray, shape (groups, 1, targets)
        Whether the output is let through above its threshold (1) or below it (-1).
    """

    sign: Rows
    x: list[Rows] = field(default_factory=list)
    target: list[Rows] = field(default_factory=list)
    thresholds: list[tuple[Rows, ...]] = field(default_factory=list)
    size: int = 0

    def add(self, x: Rows, target: Rows, *thresholds: Rows) -> None:
        """Keep a batch: arrays of shape (groups, rows, columns or targets).

        Parameters
        ----------
        thresholds : ndarray
            Where what follows becomes zero, and, if it is cut off there, where that begins.
        """
        self.size += x.nbytes + target.nbytes + sum(threshold.nbytes for threshold in thresholds)
        if self.size > MOST_BYTES:
            self.x, self.target, self.thresholds = [], [], []
        else:
            self.x.append(x)
            self.target.append(target)
            self.thresholds.append(thresholds)

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return 0 < self.size <= MOST_BYTES

    def relaxed(self, weight: Floats, shift: Floats) -> tuple[Floats, Floats, int]:
        """Return ``sum x^T t``, ``sum t`` and the number of rows, t being the targets for the present weights."""
        cross, total, count = np.zeros(weight.shape), np.zeros(shift[:, 0].shape), 0
        batches = zip(self.x, self.target, self.thresholds, strict=True)
        largest = max(self.x, key=lambda x: x.shape[1])
        size = 8 * (largest.size + weight.size + 4 * largest.shape[1] * shift.size)
        for sums in in_order(lambda batch: self._relaxed(weight, shift, *batch), batches, size):
            cross += sums[0]
            total += sums[1]
            count += sums[2]
        return cross, total, count

    def _relaxed(
        self, weight: Floats, shift: Floats, x: Rows, target: Rows, thresholds: tuple[Rows, ...]
    ) -> tuple[Floats, Floats, int]:
        """Return the same of one batch."""
        rows = x.astype(np.float64)
        given = (rows @ weight + shift) * self.sign
        wanted, bounds = target * self.sign, [threshold * self.sign for threshold in thresholds]
        relaxed = np.where(wanted > bounds[0], wanted, np.minimum(given, bounds[0]))
        for bound in bounds[1:]:
            relaxed = np.where(wanted < bound, relaxed, np.maximum(given, bound))
        relaxed *= self.sign
        return rows.transpose(0, 2, 1) @ relaxed, relaxed.sum(axis=1), rows.shape[1]


def refit_gated(
    moments: MomentSummary, weight: Floats, ridge: float, rows: GatedRows, rounds: int
) -> tuple[Floats, Floats]:
    """Return weights and intercept after some rounds, starting from the plain refit.

    Parameters
    ----------
    moments : MomentSummary
        Of inputs and plain targets.
    weight : ndarray, shape (groups, columns, targets)
        The present weights, towards which the ridge pulls.
    rounds : int
        How often targets are adapted.

    Complexity: O(rows * columns * targets) a round.
    """
    solver = Solver(moments, ridge)
    new = solver.solve(moments.xy, weight)
    shift = intercept(moments, new)
    for _ in range(rounds):
        cross, total, count = rows.relaxed(new, shift[:, None, :])
        mean = total / count
        xy = cross / count - moments.x_mean[:, :, None] * mean[:, None, :]
        new = solver.solve(xy, weight)
        shift = mean - np.einsum("gd,gdo->go", moments.x_mean, new)
    return new, shift
