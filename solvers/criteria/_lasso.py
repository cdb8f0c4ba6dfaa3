# SPDX-License-Identifier: Apache-2.0
"""LASSO: at which penalty each variable enters the path of solutions, from second moments alone.

scikit-learn's `lars_path_gram` finds the same path where all variables are independent. Where one is a copy or a sum of
others, as channels are, it gives up early and loses variables that enter later, so the path is followed here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Floats

__all__ = ["lasso_entries"]


_DEPENDENT = 1e-9  # share of its own variance that a variable must have beside those that are in already
_SMALL = 1e-12


def lasso_entries(gram: Floats, aims: Floats) -> Floats:
    """Return for each variable the penalty at which it first enters the LASSO path.

    The path is that of ``min 1/2 b' G b - q' b + penalty |b|_1``, followed down to penalty 0. A variable that depends
    linearly on those that are in does not enter; of several that come at once the lowest index does first.

    Parameters
    ----------
    gram : ndarray, shape (n, n)
        G, positive semidefinite.
    aims : ndarray, shape (n,)
        q, in the column space of G.

    Returns
    -------
    ndarray, shape (n,)
        0 for variables that never enter.

    Complexity: O(n^3) if few variables leave again.

    Notes
    -----
    Source: Efron et al., Least Angle Regression, Annals of Statistics 32 (2004), with the LASSO modification.

    Examples
    --------
    >>> lasso_entries(np.eye(3), np.array([1.0, 3.0, -2.0])).tolist()
    [1.0, 3.0, 2.0]
    """
    path = _Path(gram, aims)
    for _ in range(8 * len(aims) + 8):
        if not path.step():
            break
    return path.entered


class _Path:
    """The solution at one penalty, and who is in it."""

    def __init__(self, gram: Floats, aims: Floats) -> None:
        self._gram = gram
        self._correlations = aims.copy()
        self._weights = np.zeros(len(aims))
        self._active: list[int] = []
        self._signs = np.zeros(len(aims))
        self._room = np.zeros((len(aims), len(aims)))
        self._barred = np.diagonal(gram) <= 0  # not asked: constant, or dependent on the others
        self._left = 0
        self._penalty = float(np.abs(aims[~self._barred]).max(initial=0.0))
        self._end = self._penalty * _SMALL
        self.entered = np.zeros(len(aims))
        self._enter()

    @property
    def _inverse(self) -> Floats:
        """The inverse of the part of the matrix that belongs to the variables that are in, in their order."""
        size = len(self._active)
        return self._room[:size, :size]

    def step(self) -> bool:
        """Go on to the next penalty at which a variable enters or leaves; False at the end of the path."""
        if not self._active or self._penalty <= self._end:
            return False
        active = np.array(self._active)
        direction = self._inverse @ self._signs[active]
        towards = np.zeros(len(self._weights))
        towards[active] = direction
        falling = self._gram @ towards
        until_next = self._until_next(falling)
        with np.errstate(divide="ignore", invalid="ignore"):
            until_zero = -self._weights[active] / direction
        until_zero = np.where(until_zero > self._penalty * _SMALL, until_zero, np.inf)
        length = min(self._penalty, until_next, float(until_zero.min()))
        self._weights += length * towards
        self._correlations -= length * falling
        self._penalty -= length
        if length == until_zero.min() and length < self._penalty + length:
            self._leave(int(until_zero.argmin()))
        elif length == until_next:
            self._enter()
        return self._penalty > self._end

    def _until_next(self, falling: Floats) -> float:
        """Return by how much the penalty falls until the correlation of another variable is as large."""
        open_ = self._open()
        if not len(open_):
            return float(np.inf)
        gaps = []
        for sign in (1.0, -1.0):
            gap, speed = self._penalty - sign * self._correlations[open_], 1 - sign * falling[open_]
            with np.errstate(divide="ignore", invalid="ignore"):
                gaps.append(np.where(speed > _SMALL, np.maximum(gap, 0.0) / speed, np.inf))
        return float(np.minimum(*gaps).min())

    def _open(self) -> npt.NDArray[np.int64]:
        barred = self._barred.copy()
        barred[self._active] = True
        return np.flatnonzero(~barred)

    def _enter(self) -> None:
        """Let the variable with the largest correlation in, unless it depends on those that are in."""
        open_ = self._open()
        if not len(open_):
            return
        correlations = self._correlations[open_]
        sizes = np.abs(correlations)
        at = int(np.argmax(sizes >= sizes.max() * (1 - _SMALL)))
        new = int(open_[at])
        across = self._gram[self._active, new]
        seen = self._inverse @ across
        own = float(self._gram[new, new] - across @ seen)
        if own <= _DEPENDENT * self._gram[new, new]:
            self._barred[new] = True
            return
        size = len(self._active)
        self._inverse[:] += np.outer(seen, seen) / own
        self._room[:size, size] = self._room[size, :size] = -seen / own
        self._room[size, size] = 1 / own
        self._active.append(new)
        self._signs[new] = np.sign(correlations[at])
        self.entered[new] = self.entered[new] or self._penalty

    def _leave(self, at: int) -> None:
        """Take a variable out whose weight has become 0; what depended on it may enter now."""
        rest = [place for place in range(len(self._active)) if place != at]
        column = self._inverse[rest, at]
        left = self._inverse[np.ix_(rest, rest)] - np.outer(column, column) / self._inverse[at, at]
        self._room[: len(rest), : len(rest)] = left
        self._weights[self._active.pop(at)] = 0.0
        self._left += 1
        self._barred = np.diagonal(self._gram) <= 0
