# SPDX-License-Identifier: Apache-2.0
"""Backward elimination: in which order the atoms of a group can go, if what reads them is refitted each time.

The cost of an atom is exactly what the best refit without it loses, in the output of its consumers. One run gives
the choice for every width, since the sets are nested, and the objective at every width.

Source: group form of the optimal brain surgeon (Hassibi and Stork, 1993), as block downdates of the inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri

from graphprune.array_types import Floats, Ints
from graphprune.errors import UnsupportedModelError
from graphprune.reproducible import first_least
from graphprune.solvers.protocols.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Elimination", "Reading", "backward_elimination"]

_NEGLIGIBLE = 1e-9  # of the variance of a consumer's outputs
_PANEL = 256  # columns


@dataclass(frozen=True, eq=False)
class Elimination:
    """The order in which atoms go.

    Attributes
    ----------
    order : ndarray of int64, shape (atoms,)
        The atom that goes first stands first.
    costs : ndarray, shape (atoms,)
        What each of these steps costs: squared error relative to the variance of the outputs, summed over consumers.
    """

    order: Ints
    costs: Floats

    def kept(self, width: int) -> Ints:
        """Return the atoms that stay at a width, in increasing order."""
        return np.sort(self.order[len(self.order) - width :])


class _State:
    """The inverse and the refitted weights of one consumer while atoms go.

    The columns of an atom stand together. Every atom that goes takes a product of rank m from the inverse; these
    products are gathered, and subtracted a panel at a time from what is left by then, since the inverse of a wide layer
    is far larger than a processor's cache.
    """

    def __init__(self, reading: Reading, ridge: float) -> None:
        gram = reading.gram
        size = len(gram)
        scale = float(np.trace(gram)) / size
        atoms, taps = reading.columns.shape
        own = reading.columns.ravel()
        ridged = gram.copy()
        ridged[np.diag_indices(size)] += ridge * scale or 1.0
        self._taps = taps
        self._inverse = _inverse(ridged)[np.ix_(own, own)]
        self._weight = reading.weight[own].reshape(atoms, taps, -1)
        self._blocks = _diagonal(self._inverse, taps)
        self._rows = np.arange(atoms, dtype=np.int64)  # of the inverse, in atoms, for each live atom
        self._panel = np.empty((2, 0, 0))
        self._filled = 0
        variance = float(np.einsum("do,do->", gram @ reading.weight, reading.weight))
        self._norm = 1.0 / variance if variance > 0 else 0.0

    def costs(self) -> Floats:
        """Return what each live atom costs."""
        gram = self._weight @ self._weight.transpose(0, 2, 1)
        explained = gram / self._blocks if self._taps == 1 else np.linalg.solve(self._blocks, gram)
        result: Floats = np.trace(explained, axis1=1, axis2=2) * self._norm
        return result

    def remove(self, at: int) -> None:
        """Refit without a live atom, given by its place among those that are live."""
        taps = self._taps
        own = slice(int(self._rows[at]) * taps, int(self._rows[at] + 1) * taps)
        left, right = self._panel[:, : self._filled]
        column = self._inverse[own]
        if self._filled:
            column = column - right[:, own].T @ left
        factor = np.asarray(np.linalg.solve(column[:, own].T, column), dtype=np.float64)
        self._rows = np.delete(self._rows, at)
        behind = column.reshape(taps, -1, taps).transpose(1, 2, 0)[self._rows]
        ahead = factor.reshape(taps, -1, taps).transpose(1, 0, 2)[self._rows]
        self._weight = np.delete(self._weight, at, axis=0) - ahead.transpose(0, 2, 1) @ self._weight[at]
        self._blocks = np.delete(self._blocks, at, axis=0) - behind @ ahead
        self._gather(column, factor)

    def _gather(self, column: Floats, factor: Floats) -> None:
        """Remember what is to be subtracted from the inverse; if there is much of it, do so, and drop what is gone."""
        taps = self._taps
        if not self._filled:
            self._panel = np.empty((2, max(taps, _PANEL // taps * taps), len(self._inverse)))
        self._panel[:, self._filled : self._filled + taps] = column, factor
        self._filled += taps
        if self._filled == self._panel.shape[1]:
            live = (self._rows[:, None] * taps + np.arange(taps)).ravel()
            left, right = self._panel[:, :, live]
            self._inverse = self._inverse[np.ix_(live, live)] - left.T @ right
            self._rows = np.arange(len(self._rows), dtype=np.int64)
            self._filled = 0


def _diagonal(matrix: Floats, size: int) -> Floats:
    """Return the square blocks of a size along the diagonal, shape (blocks, size, size)."""
    at = np.arange(len(matrix)).reshape(-1, size)
    blocks: Floats = matrix[at[:, :, None], at[:, None, :]]
    return blocks


def _inverse(matrix: Floats) -> Floats:
    if not np.isfinite(matrix).all():
        raise UnsupportedModelError(
            "the network computes values that are not finite on these samples, so no width can be measured on them",
            hint="give other samples with --calib SOURCE, or choose widths by --solver bisection",
        )
    factor, indefinite = dpotrf(matrix, lower=True)
    inverse, singular = dpotri(factor, lower=True)
    if indefinite or singular:
        return np.asarray(np.linalg.pinv(matrix, hermitian=True), dtype=np.float64)
    lower: Floats = np.tril(inverse)
    return lower + np.tril(lower, -1).T


def backward_elimination(readings: Sequence[Reading], ridge: float = 1e-3) -> Elimination:
    """Let the atoms of a group go one after the other, the cheapest first; of nearly equal ones the highest index.

    Parameters
    ----------
    readings : sequence of Reading
        One per consumer, all with the same number of atoms.
    ridge : float
        Relative to the mean variance of the inputs of each consumer.

    Complexity: O(columns^3) for each consumer.
    """
    states = [_State(reading, ridge) for reading in readings]
    live = np.arange(len(readings[0].columns), dtype=np.int64)
    order, costs = [], []
    while len(live):
        total = np.sum([state.costs() for state in states], axis=0)
        at = len(live) - 1 - first_least(total[::-1], _NEGLIGIBLE)
        order.append(int(live[at]))
        costs.append(float(total[at]))
        for state in states:
            state.remove(at)
        live = np.delete(live, at)
    return Elimination(np.array(order, dtype=np.int64), np.maximum(np.array(costs), 0.0))
