# SPDX-License-Identifier: Apache-2.0
"""Stages: a network divided where its resolution falls, and what one stage costs given the widths at its borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Ints
from graphprune.labels.space import MultiplyAdds

__all__ = ["Stage", "find_stages"]


@dataclass(frozen=True, eq=False)
class Stage:
    """Layers in graph order, and the groups that are made in them.

    Attributes
    ----------
    layers : tuple of int
        Numbers of the counted layers.
    groups : tuple of int
        Numbers of the groups whose first layer is in this stage.
    crossing : tuple of int
        Groups of this or an earlier stage that layers of later ones touch, too.
    """

    layers: tuple[int, ...]
    groups: tuple[int, ...]
    crossing: tuple[int, ...]

    def cost(self, analysis: Analysis, widths: Ints) -> int:
        """Return the FLOPs of the layers of this stage at given widths of all groups."""
        return sum(analysis.layers[number].flops(widths) for number in self.layers)


def find_stages(analysis: Analysis, count: int = 3) -> tuple[Stage, ...]:
    """Divide the layers of a model.

    A stage begins at the first convolution that makes maps smaller than all before it. Where there is no such place
    (a transformer, an MLP), there are `count` stages of about equal cost. Stages without a group of their own
    become part of the one before them.

    Parameters
    ----------
    analysis : Analysis
    count : int
        Only where resolution does not say.

    Returns
    -------
    tuple of Stage
        In graph order; empty where no channel may go.
    """
    costs = analysis.scope.space.costs
    numbers = _by_resolution(analysis, costs)
    if not numbers.any():
        numbers = _by_cost(analysis, count)
    touched = [_groups(analysis, cost) for cost in costs]
    first, last = _reach(touched, numbers, len(analysis.groups))
    owned = sorted({int(stage) for stage in first if stage >= 0})
    if not owned:
        return ()
    place = np.searchsorted(owned, np.arange(int(numbers.max()) + 1), side="right") - 1
    place = np.maximum(place, 0)
    stages = []
    for stage in range(len(owned)):
        stages.append(
            Stage(
                tuple(np.flatnonzero(place[numbers] == stage).tolist()),
                tuple(np.flatnonzero((first >= 0) & (place[first] == stage)).tolist()),
                tuple(np.flatnonzero((first >= 0) & (place[first] <= stage) & (place[last] > stage)).tolist()),
            )
        )
    return tuple(stages)


def _reach(touched: list[set[int]], numbers: Ints, groups: int) -> tuple[Ints, Ints]:
    """Return the first and the last stage whose layers touch each group; -1 where none does."""
    first, last = np.full(groups, -1, dtype=np.int64), np.full(groups, -1, dtype=np.int64)
    for own, stage in zip(touched, numbers.tolist(), strict=True):
        for group in own:
            first[group] = stage if first[group] < 0 else min(int(first[group]), stage)
            last[group] = max(int(last[group]), stage)
    return first, last


def _groups(analysis: Analysis, cost: MultiplyAdds) -> set[int]:
    """Return the groups that the cost of a layer depends on."""
    groups: set[int] = set()
    for _, axes in cost.products:
        for axis in (*axes, cost.inner, cost.outer):
            atoms = analysis.grouping.atom_of[axis.base]
            groups.update(np.unique(analysis.grouping.group_of[atoms[atoms >= 0]]).tolist())
    return groups


def _by_resolution(analysis: Analysis, costs: list[MultiplyAdds]) -> Ints:
    """Return the stage of every layer: how often maps have become smaller up to it."""
    smallest, stage, numbers = 0, 0, []
    for cost in costs:
        shape = analysis.shapes.dims.get(cost.node.outputs[0])
        if cost.node.op_type == "Conv" and shape is not None and len(shape) > 2:
            size = int(np.prod(shape[2:]))
            if smallest and 1 < size < smallest:
                stage += 1
            smallest = size if not smallest else min(smallest, size)
        numbers.append(stage)
    return np.array(numbers, dtype=np.int64)


def _by_cost(analysis: Analysis, count: int) -> Ints:
    """Return the stage of every layer, all stages costing about the same."""
    spent = np.cumsum([layer.flops(analysis.cost.sizes) for layer in analysis.layers]).astype(np.float64)
    middle = spent - np.diff(spent, prepend=0.0) / 2
    numbers: Ints = np.minimum(middle / max(float(spent[-1]), 1.0) * count, count - 1).astype(np.int64)
    return numbers
