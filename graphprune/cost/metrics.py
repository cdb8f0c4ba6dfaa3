# SPDX-License-Identifier: Apache-2.0
"""What a model costs by each metric that follows from the model alone; a latency has to be measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.cost.memory import PeakMemory
from graphprune.cost.size import WrittenSize
from graphprune.model.write import file_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Ints
    from graphprune.solvers.problem import Cost

__all__ = ["COUNTED", "ModelCost", "model_cost"]

COUNTED = ("flops", "params", "size", "memory")
"""Metrics that can be counted on a file."""


@dataclass(frozen=True, eq=False)
class ModelCost:
    """What a model costs as it is, and what surgery makes of that.

    A plan that removes nothing gives the original file itself, which may be smaller than the same model written anew.

    Attributes
    ----------
    sizes : ndarray of int64, shape (groups,)
        Full widths.
    before : int
        Of the model as it is.
    written : Cost
        Of what surgery writes. It never falls when a group grows, as solvers want it.
    exact_whole : Cost
        The same, but `before` at full width; at other widths it may be too little then.
    rest : callable
        Gives what surgery writes of a graph from which some groups are gone already, from its analysis.
    """

    sizes: Ints
    before: int
    written: Cost
    exact_whole: Cost
    rest: Callable[[Analysis], Cost]

    @classmethod
    def of(cls, cost: Cost, sizes: Ints, rest: Callable[[Analysis], Cost]) -> ModelCost:
        """Return a cost that is the same for a model as it is and for one that is written anew."""
        return cls(sizes, cost(sizes), cost, cost, rest)

    def after(self, widths: Ints) -> int:
        """Return the cost of what a plan with these widths gives."""
        return self.before if np.array_equal(widths, self.sizes) else self.written(widths)


def model_cost(analysis: Analysis, metric: str) -> ModelCost:
    """Return what a plan is told to cost: FLOPs, parameters, bytes of the written file, or bytes of activations.

    Raises
    ------
    InternalError
        For any other name.

    Complexity: of a size and a memory that of a walk over the graph, O(nodes); remember it where it is needed again.
    """
    sizes = analysis.cost.sizes

    def rest(start: Analysis) -> Cost:
        return model_cost(start, metric).written

    if metric == "size":
        written, before = WrittenSize(analysis), file_bytes(analysis.model)
        return ModelCost(sizes, before, written, written.shifted(before - written(sizes)), rest)
    return ModelCost.of(PeakMemory(analysis) if metric == "memory" else analysis.cost.metric(metric), sizes, rest)
