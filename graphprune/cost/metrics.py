# SPDX-License-Identifier: Apache-2.0
"""The cost of each metric that follows from the model alone; a latency has to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from graphprune.cost.memory import PeakMemory
from graphprune.cost.size import Bound, WrittenSize

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.solvers.problem import Cost

__all__ = ["COUNTED", "cost_of", "growing"]

COUNTED = ("flops", "params", "size", "memory")
"""Metrics that can be counted on a file."""


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


def growing(cost: Cost, *, whole: bool = False) -> Cost:
    """Return a cost that never falls when a group grows, for one that does.

    Only the size of the written file does: a model from which nothing is removed is not written anew.

    Parameters
    ----------
    whole : bool
        Let it be exact at full width; where something is removed, it is then no bound.
    """
    return cost.growing(whole=whole) if isinstance(cost, WrittenSize | Bound) else cost
