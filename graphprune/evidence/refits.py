# SPDX-License-Identifier: Apache-2.0
"""Refits: weights of the dense network in which removed atoms are zero and what stays makes up for them.

A masked network of the same shapes computes what the pruned one does, so many widths can be tried in one session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array, Ints, Mask
from graphprune.evidence.consumers import find_consumers
from graphprune.evidence.downstream import shift_of
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.least_squares import refit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.evidence.consumers import Consumer
    from graphprune.evidence.downstream import Readings

__all__ = ["Refits"]


class Refits:
    """An editable copy of the dense network and the weights that read its groups.

    Parameters
    ----------
    analysis : Analysis
    read : Readings
        Of the same network: moments of what its consumers read. Nothing in it changes.
    ridge : float
        As for recovery.

    Attributes
    ----------
    editable : EditableModel
    consumers : tuple
        By group; None where something other than weights reads it.
    """

    def __init__(self, analysis: Analysis, read: Readings, ridge: float) -> None:
        self.editable = EditableModel(analysis.model)
        self.consumers = find_consumers(self.editable, analysis)
        self._moments = read.moments
        self._ridge = ridge
        all_of_them = {one.node.index: one for own in self.consumers for one in own or ()}
        self._by_node = all_of_them
        self._shifts = {index: shift_of(self.editable, one) for index, one in all_of_them.items()}
        self._dense = {index: self.editable.read(one.kernel.tensor) for index, one in all_of_them.items()}
        self._bias = {index: self.editable.read(name) for index, (name, _) in self._shifts.items() if name}
        self._gone: dict[int, Mask] = {
            index: np.zeros(one.kernel.columns, dtype=np.bool_) for index, one in all_of_them.items()
        }

    def fed(self, kept: Mapping[int, Ints]) -> dict[str, Array]:
        """Return stored tensors, by name, for the case that some groups keep these atoms.

        Only those that change are there. What was written stays gone as well.
        """
        gone = self._with(kept)
        return {
            name: value
            for index, columns in gone.items()
            for name, value in self._refitted(self._by_node[index], columns).items()
        }

    def write(self, kept: Mapping[int, Ints]) -> None:
        """Write the same into the editable copy: everything that is asked for later starts from there."""
        for name, value in self.fed(kept).items():
            self.editable.write(name, value)
        self._gone.update(self._with(kept))

    def _with(self, kept: Mapping[int, Ints]) -> dict[int, Mask]:
        """Return the removed columns of each layer that reads one of some groups, by node."""
        removed: dict[int, Mask] = {}
        for group, atoms in kept.items():
            for consumer in self.consumers[group] or ():
                index = consumer.node.index
                columns = removed.setdefault(index, self._gone[index].copy())
                columns[np.delete(consumer.columns, atoms, axis=0).ravel()] = True
        return removed

    def _refitted(self, consumer: Consumer, gone: Mask) -> dict[str, Array]:
        index, kernel = consumer.node.index, consumer.kernel
        moments = self._moments[consumer.node.outputs[0]]
        before = kernel.matrix(self._dense[index])
        weight = np.zeros_like(before)
        weight[:, ~gone] = refit(moments.of(~gone), before[:, ~gone], self._ridge)
        tensors = {kernel.tensor: kernel.stored(weight).astype(self._dense[index].dtype)}
        name, factor = self._shifts[index]
        if name:
            present = self._bias[index]
            shift = factor * (moments.x_mean[0] @ (before[0] - weight[0]))
            tensors[name] = (present + shift.reshape(present.shape)).astype(present.dtype)
        return tensors
