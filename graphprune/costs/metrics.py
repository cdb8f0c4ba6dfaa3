# SPDX-License-Identifier: Apache-2.0
"""The cost of each metric that follows from the model alone; a latency has to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from graphprune.costs.memory import PeakMemory
from graphprune.costs.size import WrittenSize

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from graphprune.analysis import Analysis

__all__ = ["COUNTED", "Cost", "cost_of", "growing_cost_of"]

COUNTED = ("flops", "params", "size", "memory")
"""Metrics that can be counted on a file."""


class Cost(Protocol):
    """A cost as a function of the widths, int64 of shape (groups,)."""

    def __call__(self, widths: npt.NDArray[np.int64], /) -> int:
        """Return the cost at `widths`."""

    def change(self, widths: npt.NDArray[np.int64], group: int, width: int, /) -> int:
        """Return by how much it changes when `group` moves from ``widths[group]`` to `width`."""


_made: WeakKeyDictionary[Analysis, dict[str, Cost]] = WeakKeyDictionary()


def cost_of(analysis: Analysis, metric: str) -> Cost:
    """Return what a plan is told to cost: FLOPs, parameters, bytes of the written file, or bytes of activations.

    Raises
    ------
    InternalError
        For any other name.
    """
    made = _made.setdefault(analysis, {})
    if metric not in made:
        if metric == "size":
            made[metric] = WrittenSize(analysis)
        else:
            made[metric] = PeakMemory(analysis) if metric == "memory" else analysis.cost.metric(metric)
    return made[metric]


def growing_cost_of(analysis: Analysis, metric: str, *, whole: bool = False) -> Cost:
    """Return the same as a cost that never falls when a group grows.

    They differ for the size alone: a model from which nothing is removed is not written anew.

    Parameters
    ----------
    whole : bool
        Nothing is going to be removed.
    """
    cost = cost_of(analysis, metric)
    return cost.growing(whole=whole) if isinstance(cost, WrittenSize) else cost
