# SPDX-License-Identifier: Apache-2.0
"""Forward selection: which atoms of a group rebuild best what its consumers compute, one after the other.

The objective is the squared error of the best linear rebuilding of all consumers' outputs from the atoms chosen so
far, each consumer relative to the variance of its outputs. One run gives the order and the error at every width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.reproducible import first_least, one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.solvers.protocols.reading import Reading

__all__ = ["Selection", "forward_selection"]


@dataclass(frozen=True, eq=False)
class Selection:
    """The order in which atoms are chosen.

    Attributes
    ----------
    order : ndarray of int64, shape (atoms,)
        The atom that is chosen first stands first.
    errors : ndarray, shape (atoms + 1,), non-increasing
        What remains unexplained with the first 0, 1, ... atoms of the order, added up over the consumers.
    """

    order: Ints
    errors: Floats


@one_blas_thread()
def forward_selection(readings: Sequence[Reading], ridge: float) -> Selection:
    """Choose the atoms of a group one after the other, the most useful first; of nearly equal ones the lowest index.

    Parameters
    ----------
    readings : sequence of Reading, at least one
        One per consumer, all with the same number of atoms.
    ridge : float, >= 1e-9
        Relative to the mean variance of the inputs of each consumer; draws the refitted weights to the present ones.

    Complexity: O(columns^3) for each consumer.

    Notes
    -----
    Source: the ranking of CaP (Xie et al., Compensation-aware pruning) in its downdating form, which is a Cholesky
    factorisation with pivoting by blocks; that consumers are added up relative to their variance is ours.
    """
    states = [_State(reading, ridge) for reading in readings]
    live = np.arange(len(readings[0].columns), dtype=np.int64)
    order, gains = [], []
    while len(live):
        total = np.sum([state.gains(live) for state in states], axis=0)
        at = first_least(-total)
        order.append(int(live[at]))
        gains.append(float(total[at]))
        for state in states:
            state.choose(order[-1])
        live = np.delete(live, at)
    start = sum(1.0 for state in states if state.norm > 0)
    errors = start - np.concatenate([[0.0], np.cumsum(gains)])
    return Selection(np.array(order, dtype=np.int64), np.maximum(np.minimum.accumulate(errors), 0.0))


class _State:
    """What the chosen atoms leave of the inputs of one consumer, and of their part in its outputs.

    Only what gains are made of is kept up to date, blocks of m x m per atom; the rest of what is left follows from the
    factors of the atoms chosen so far, for the atom that is chosen.
    """

    def __init__(self, reading: Reading, ridge: float) -> None:
        size = len(reading.gram)
        scale = float(np.trace(reading.gram)) / size
        self._columns = reading.columns
        self._gram = reading.gram + (ridge * scale or 1.0) * np.eye(size)
        weight = _narrowed(reading.weight)
        self._made = self._gram @ weight
        variance = float(np.einsum("do,do->", self._made, weight)) if scale > 0 else 0.0
        self.norm = 1.0 / variance if variance > 0 else 0.0
        self._factors = np.zeros((size, size))
        self._explained = np.zeros((size, weight.shape[1]))
        self._done = 0
        columns = reading.columns
        self._rest = self._gram[columns[:, :, None], columns[:, None, :]]
        self._parts = np.stack([block @ block.T for block in self._made[columns]])

    def gains(self, live: Ints) -> Floats:
        """Return by how much each live atom would lower the error."""
        rest, parts = self._rest[live], self._parts[live]
        if rest.shape[1] == 1:
            result: Floats = parts[:, 0, 0] / rest[:, 0, 0]
        else:
            result = np.einsum("amm->a", np.linalg.solve(rest, parts))
        return np.maximum(result, 0.0) * self.norm

    def choose(self, atom: int) -> None:
        """Take what an atom explains off everything."""
        own, done = self._columns[atom], self._done
        known, explained = self._factors[:, :done], self._explained[:done]
        across = self._gram[:, own] - known @ known[own].T
        root = np.linalg.cholesky(across[own])
        factor = np.linalg.solve(root, across.T).T  # shape (columns, m)
        made = np.linalg.solve(root, self._made[own] - known[own] @ explained)  # shape (m, outputs)
        left = self._made @ made.T - known @ (explained @ made.T)
        # The parts of an atom are P P', and its P becomes P - L Y: its block L of the factor times what is `made`, Y.
        blocks, mixed = factor[self._columns], left[self._columns]
        cross = mixed @ blocks.transpose(0, 2, 1)
        self._parts += blocks @ (made @ made.T) @ blocks.transpose(0, 2, 1) - cross - cross.transpose(0, 2, 1)
        self._rest -= blocks @ blocks.transpose(0, 2, 1)
        self._factors[:, done : done + len(own)] = factor
        self._explained[done : done + len(own)] = made
        self._done += len(own)


def _narrowed(weight: Floats) -> Floats:
    """Return weights of no more outputs than columns with the same products of any two rows, shape (columns, least)."""
    if weight.shape[1] <= weight.shape[0]:
        return weight
    triangle: Floats = np.asarray(np.linalg.qr(weight.T, mode="r"))
    return triangle.T
