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
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from graphprune.array_types import Floats, Ints
from graphprune.errors import UnsupportedModelError
from graphprune.reproducible import first_least
from graphprune.solvers.protocols.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Elimination", "Reading", "backward_elimination"]

_NEGLIGIBLE = 1e-9  # of the variance of a consumer's outputs


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
    """The inverse and the refitted weights of one consumer while atoms go."""

    def __init__(self, reading: Reading, ridge: float) -> None:
        gram = reading.gram
        size = len(gram)
        scale = float(np.trace(gram)) / size
        ridged = gram + (ridge * scale or 1.0) * np.eye(size)
        self.columns = reading.columns
        self.inverse = _inverse(ridged)
        self.weight = reading.weight.copy()
        variance = float(np.einsum("do,do->", gram @ reading.weight, reading.weight))
        self.norm = 1.0 / variance if variance > 0 else 0.0

    def costs(self, live: Ints) -> Floats:
        """Return what each live atom costs."""
        columns = self.columns[live]
        blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
        rows = self.weight[columns]
        result: Floats = np.einsum("amo,amo->a", rows, np.linalg.solve(blocks, rows)) * self.norm
        return result

    def remove(self, atom: int) -> None:
        """Refit without an atom."""
        own = self.columns[atom]
        right = self.inverse[:, own]
        factor = np.linalg.solve(right[own], np.concatenate([self.weight[own], right.T], axis=1))
        outputs = self.weight.shape[1]
        self.weight -= right @ factor[:, :outputs]
        self.inverse -= right @ factor[:, outputs:]
        self.weight[own] = 0


def _inverse(matrix: Floats) -> Floats:
    if not np.isfinite(matrix).all():
        raise UnsupportedModelError(
            "the network computes values that are not finite on these samples, so no width can be measured on them",
            hint="give other samples with --calib SOURCE, or choose widths by --solver bisection",
        )
    try:
        return np.asarray(cho_solve(cho_factor(matrix, lower=True), np.eye(len(matrix))), dtype=np.float64)
    except LinAlgError:
        return np.asarray(np.linalg.pinv(matrix, hermitian=True), dtype=np.float64)


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
        total = np.sum([state.costs(live) for state in states], axis=0)
        at = len(live) - 1 - first_least(total[::-1], _NEGLIGIBLE)
        order.append(int(live[at]))
        costs.append(float(total[at]))
        for state in states:
            state.remove(order[-1])
        live = np.delete(live, at)
    return Elimination(np.array(order, dtype=np.int64), np.maximum(np.array(costs), 0.0))
