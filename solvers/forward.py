# SPDX-License-Identifier: Apache-2.0
"""Forward selection: which atoms of a group rebuild best what its consumers compute, one after the other.

The objective is the squared error of the best linear rebuilding of all consumers' outputs from the atoms chosen so
far, each consumer relative to the variance of its outputs. One run gives the order and the error at every width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.solvers.reading import Reading

__all__ = ["Selection", "forward_selection"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_DIGITS = 9  # gains that agree in as many digits are equal: the rest is rounding


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


def forward_selection(readings: Sequence[Reading], ridge: float) -> Selection:
    """Choose the atoms of a group one after the other, the most useful next one first; ties go to the lower index.

    Parameters
    ----------
    readings : sequence of Reading, at least one
        One per consumer, all with the same number of atoms.
    ridge : float, > 0
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
        top = float(total.max())
        at = int(np.argmax(np.round(total / top, _DIGITS))) if top > 0 else 0
        order.append(int(live[at]))
        gains.append(float(total[at]))
        for state in states:
            state.choose(order[-1])
        live = np.delete(live, at)
    start = sum(1.0 for state in states if state.norm > 0)
    errors = start - np.concatenate([[0.0], np.cumsum(gains)])
    return Selection(np.array(order, dtype=np.int64), np.maximum(np.minimum.accumulate(errors), 0.0))


class _State:
    """What the chosen atoms leave of the inputs of one consumer, and of their part in its outputs."""

    def __init__(self, reading: Reading, ridge: float) -> None:
        size = len(reading.gram)
        scale = float(np.trace(reading.gram)) / size
        self.columns = reading.columns
        self.rest = reading.gram + (ridge * scale or 1.0) * np.eye(size)
        self.unexplained = self.rest @ reading.weight
        variance = float(np.einsum("do,do->", self.unexplained, reading.weight)) if scale > 0 else 0.0
        self.norm = 1.0 / variance if variance > 0 else 0.0

    def gains(self, live: Ints) -> Floats:
        """Return by how much each live atom would lower the error."""
        columns = self.columns[live]
        blocks = self.rest[columns[:, :, None], columns[:, None, :]]
        rows = self.unexplained[columns]
        result: Floats = np.einsum("amo,amo->a", rows, np.linalg.solve(blocks, rows)) * self.norm
        return result

    def choose(self, atom: int) -> None:
        """Take what an atom explains off everything."""
        own = self.columns[atom]
        outputs = self.unexplained.shape[1]
        known = np.concatenate([self.unexplained[own], self.rest[own]], axis=1)
        factor = np.linalg.solve(self.rest[np.ix_(own, own)], known)
        across = self.rest[:, own]
        self.unexplained -= across @ factor[:, :outputs]
        self.rest -= across @ factor[:, outputs:]
