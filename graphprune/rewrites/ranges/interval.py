# SPDX-License-Identifier: Apache-2.0
"""Intervals: arithmetic on arrays of lower and upper bounds, in float64.

Bounds may be infinite. Zero times anything is zero: inputs are taken to be finite. What cannot be computed (NaN) is
unbounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Floats

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["UNKNOWN", "Interval", "joined"]


@dataclass(frozen=True, eq=False)
class Interval:
    """``low <= x <= high`` for each of n slices; arrays of shape (n,), or (1,) where one pair holds for all."""

    low: Floats
    high: Floats

    @classmethod
    def of(cls, low: Floats, high: Floats) -> Interval:
        """Return an interval; NaN becomes unbounded."""
        return cls(np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high))

    @classmethod
    def between(cls, low: float, high: float) -> Interval:
        """Return one pair of bounds for all slices."""
        return cls(np.array([low]), np.array([high]))

    @property
    def point(self) -> npt.NDArray[np.bool_]:
        """Which slices have one finite value only."""
        return np.asarray((self.low == self.high) & np.isfinite(self.low))

    @property
    def zero(self) -> npt.NDArray[np.bool_]:
        """Which slices are zero."""
        return np.asarray((self.low == 0) & (self.high == 0))

    def hull(self) -> Interval:
        """Return one pair of bounds that holds for all slices."""
        return Interval(self.low.min(keepdims=True), self.high.max(keepdims=True))

    def spread(self, size: int) -> Interval:
        """Return bounds for each of `size` slices."""
        return Interval(np.broadcast_to(self.low, (size,)), np.broadcast_to(self.high, (size,)))

    def with_value(self, value: float, where: npt.NDArray[np.bool_] | None = None) -> Interval:
        """Let the value be possible too."""
        chosen = np.ones(len(self.low), dtype=np.bool_) if where is None else where
        low, high = np.minimum(self.low, value), np.maximum(self.high, value)
        return Interval(np.where(chosen, low, self.low), np.where(chosen, high, self.high))

    def replaced(self, where: npt.NDArray[np.bool_], value: float) -> Interval:
        """Return the interval with one value in some slices."""
        size = len(where)
        both = self.spread(size)
        return Interval(np.where(where, value, both.low), np.where(where, value, both.high))

    def only_zero(self) -> Interval:
        """Keep what is zero; all else is unknown."""
        return Interval(np.where(self.zero, 0.0, -np.inf), np.where(self.zero, 0.0, np.inf))

    def __add__(self, other: Interval) -> Interval:
        return Interval.of(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval.of(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        corners = [_product(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval.of(reduce(np.minimum, corners), reduce(np.maximum, corners))

    def __truediv__(self, other: Interval) -> Interval:
        apart = (other.low > 0) | (other.high < 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = 1.0 / other.high, 1.0 / other.low
        return self * Interval(np.where(apart, low, -np.inf), np.where(apart, high, np.inf))

    def largest(self, other: Interval) -> Interval:
        """Return the interval of ``max(x, y)``."""
        return Interval(np.maximum(self.low, other.low), np.maximum(self.high, other.high))

    def smallest(self, other: Interval) -> Interval:
        """Return the interval of ``min(x, y)``."""
        return Interval(np.minimum(self.low, other.low), np.minimum(self.high, other.high))

    def either(self, other: Interval) -> Interval:
        """Return an interval that holds x and y."""
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def weighted(self, weight: Floats) -> Interval:
        """Return the interval of ``weight @ x``.

        Parameters
        ----------
        weight : ndarray of float64, shape (..., taps, n)
            Every output is a sum over n inputs of a weight per tap times any of their values.
        """
        if not (np.isfinite(self.low).any() or np.isfinite(self.high).any()):
            read = (weight != 0).any(axis=(-2, -1))
            return Interval(np.where(read, -np.inf, 0.0), np.where(read, np.inf, 0.0))
        positive, negative = np.maximum(weight, 0.0).sum(axis=-2), np.minimum(weight, 0.0).sum(axis=-2)
        low = _dot(positive, self.low) + _dot(negative, self.high)
        high = _dot(positive, self.high) + _dot(negative, self.low)
        return Interval.of(low, high)


UNKNOWN = Interval.between(-np.inf, np.inf)


def joined(parts: Iterable[Interval]) -> Interval:
    """Return the intervals of slices that stand end to end."""
    listed = list(parts)
    return Interval(np.concatenate([p.low for p in listed]), np.concatenate([p.high for p in listed]))


def _product(first: Floats, second: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.where((first == 0) | (second == 0), 0.0, first * second)


def _dot(matrix: Floats, bound: Floats) -> Floats:
    """Return the product of a matrix whose elements have one sign with a vector that may be infinite.

    Zero times infinite is zero, and an infinite sum of both signs is unknown.
    """
    finite = np.isfinite(bound)
    result: Floats = matrix @ np.where(finite, bound, 0.0)
    if finite.all():
        return result
    more, less = matrix @ (bound == np.inf).astype(np.float64), matrix @ (bound == -np.inf).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return result + np.where(more == 0, 0.0, more * np.inf) - np.where(less == 0, 0.0, less * np.inf)
