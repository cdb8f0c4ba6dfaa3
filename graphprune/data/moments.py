# SPDX-License-Identifier: Apache-2.0
"""Moments: means, second and cross moments of rows, streamed, in memory that depends on the columns only.

Products are made in float64 around the first batch's mean: activations behind a ReLU have large means, and their raw
second moments would lose what matters; and in float32 the kernels of a processor could be told by them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Floats
from graphprune.errors import InternalError
from graphprune.reproducible import InOrder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MomentSummary", "Moments", "merged"]

Rows = npt.NDArray[np.float32]
_Sums = tuple[Floats, Floats, Floats, Floats, Floats]


@dataclass(frozen=True, eq=False)
class MomentSummary:
    """Centred moments of inputs x and targets y, per convolution group.

    Attributes
    ----------
    count : int
        Rows.
    x_mean, y_mean : ndarray, shape (groups, columns), (groups, targets)
    xx : ndarray, shape (groups, columns, columns)
        Covariance of the inputs.
    xy : ndarray, shape (groups, columns, targets)
    yy : ndarray, shape (groups, targets)
        Variance of each target.
    """

    count: int
    x_mean: Floats
    y_mean: Floats
    xx: Floats
    xy: Floats
    yy: Floats

    def of(self, columns: npt.NDArray[np.bool_]) -> MomentSummary:
        """Return the moments with some of the inputs only.

        Parameters
        ----------
        columns : ndarray of bool, shape (columns,)
        """
        return replace(
            self, x_mean=self.x_mean[:, columns], xx=self.xx[:, columns][:, :, columns], xy=self.xy[:, columns]
        )

    def uncentred(self) -> MomentSummary:
        """Return moments around zero, for a node without an intercept."""
        x, y = self.x_mean, self.y_mean
        return replace(
            self,
            xx=self.xx + x[:, :, None] * x[:, None, :],
            xy=self.xy + x[:, :, None] * y[:, None, :],
            yy=self.yy + y**2,
        )

    def errors(self, weight: Floats) -> Floats:
        """Return the mean squared error of ``y - x weight`` with the best intercept, shape (groups, targets)."""
        explained = 2 * np.einsum("gdo,gdo->go", self.xy, weight)
        result: Floats = self.yy - explained + np.einsum("gdo,gdo->go", self.xx @ weight, weight)
        return result


def merged(one: MomentSummary, two: MomentSummary) -> MomentSummary:
    """Return the moments of the rows of both."""
    count = one.count + two.count
    share = one.count / count
    x, y = two.x_mean - one.x_mean, two.y_mean - one.y_mean
    between = share * (1 - share)
    return MomentSummary(
        count=count,
        x_mean=one.x_mean + (1 - share) * x,
        y_mean=one.y_mean + (1 - share) * y,
        xx=share * one.xx + (1 - share) * two.xx + between * x[:, :, None] * x[:, None, :],
        xy=share * one.xy + (1 - share) * two.xy + between * x[:, :, None] * y[:, None, :],
        yy=share * one.yy + (1 - share) * two.yy + between * y**2,
    )


class Moments:
    """Accumulates moments of rows of inputs and targets."""

    def __init__(self) -> None:
        self._count = 0
        self._shift: tuple[Rows, Rows] | None = None
        self._sums: _Sums | None = None
        self._pending: InOrder[_Sums] | None = None

    def add(self, x: Rows, y: Rows) -> None:
        """Add rows.

        Parameters
        ----------
        x : ndarray of float32, shape (groups, rows, columns)
        y : ndarray of float32, shape (groups, rows, targets)
        """
        if self._shift is None:
            self._shift = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
        if self._pending is None:
            columns, targets = x.shape[2], y.shape[2]
            self._pending = InOrder(8 * (len(x) * columns * (columns + targets) + x.size + y.size))
        self._count += x.shape[1]
        self._take(self._pending.hand_in(_sums, (x - self._shift[0], y - self._shift[1])))

    def summary(self) -> MomentSummary:
        """Return the centred moments of all rows so far; at least one must have been added."""
        if self._pending is not None:
            self._take(self._pending.rest())
            self._pending = None
        if self._shift is None or self._sums is None:
            raise InternalError("moments of no rows at all")
        x_sum, y_sum, xx, xy, yy = (total / self._count for total in self._sums)
        return MomentSummary(
            count=self._count,
            x_mean=x_sum + self._shift[0][:, 0],
            y_mean=y_sum + self._shift[1][:, 0],
            xx=xx - x_sum[:, :, None] * x_sum[:, None, :],
            xy=xy - x_sum[:, :, None] * y_sum[:, None, :],
            yy=np.maximum(yy - y_sum**2, 0.0),
        )

    def _take(self, made: Iterator[_Sums]) -> None:
        for parts in made:
            if self._sums is None:
                self._sums = parts
                continue
            for total, part in zip(self._sums, parts, strict=True):
                total += part


def _sums(rows: tuple[Rows, Rows]) -> _Sums:
    """Return the sums of x, y, ``x^T x``, ``x^T y`` and y squared over the rows."""
    x, y = (part.astype(np.float64) for part in rows)
    transposed = x.transpose(0, 2, 1)
    return x.sum(axis=1), y.sum(axis=1), transposed @ x, transposed @ y, np.square(y).sum(axis=1)
