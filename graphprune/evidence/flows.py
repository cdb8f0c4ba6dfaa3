# SPDX-License-Identifier: Apache-2.0
"""Flows: activations times their gradients at the layers that make a group and those that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.evidence.gradients import at_values
from graphprune.solvers.criteria._slices import filters
from graphprune.solvers.protocols.observed import Flow, Flows

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.data.source import Source

__all__ = ["flows"]


_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "DeformConv"})


@dataclass(frozen=True, eq=False)
class _Site:
    """A value at which a layer makes or reads channels of a group."""

    group: int
    made: bool
    value: str
    axis: int
    positions: Ints
    atoms: Ints


def flows(analysis: Analysis, source: Source, seed: int, *, squared: bool) -> Flows:
    """Return for each group the flow through the layers around it; None where torch reaches none of them.

    Parameters
    ----------
    squared : bool
        Half the mean square over samples of each channel's sum instead of the mean magnitude.

    Raises
    ------
    DataError, UnsupportedModelError
        If labels are no classes, or torch cannot run the model.
    """
    sites = _sites(analysis)
    sums: dict[int, Floats] = {}
    points: dict[int, float] = {}
    count, of = 0, ""
    for values, differentiated in at_values(analysis, list(dict.fromkeys(site.value for site in sites)), source, seed):
        of = differentiated
        for number, site in enumerate(sites):
            if site.value not in values:
                continue
            value, gradient = values[site.value]
            signed = _per_channel(value.astype(np.float64) * gradient, site.axis)
            measured = 0.5 * np.square(signed) if squared else np.abs(signed)
            sums[number] = sums.get(number, 0.0) + measured.mean(axis=0)
            points[number] = value.size / (value.shape[site.axis] * len(signed))
        count += 1
    return Flows(
        tuple(_flow(number, analysis, sites, sums, points, count) for number in range(len(analysis.groups))), of
    )


def _per_channel(products: Floats, axis: int) -> Floats:
    """Return the sum over all positions for each sample and channel; a value without samples is one sample."""
    if axis == 0:
        products = products[None]
    moved = np.moveaxis(products, max(axis, 1), 1)
    summed: Floats = moved.reshape(*moved.shape[:2], -1).sum(axis=2)
    return summed


def _flow(
    group: int, analysis: Analysis, sites: list[_Site], sums: dict[int, Floats], points: dict[int, float], count: int
) -> Flow | None:
    """Add up what the sites of one group have seen."""
    size = analysis.groups[group].size
    totals = {made: np.zeros(size) for made in (True, False)}
    counts = {made: np.zeros(size) for made in (True, False)}
    own = [(number, site) for number, site in enumerate(sites) if site.group == group and number in sums]
    for number, site in own:
        totals[site.made] += np.bincount(site.atoms, sums[number][site.positions] / count, minlength=size)
        counts[site.made] += points[number] * np.bincount(site.atoms, minlength=size)
    return Flow(totals[True], totals[False], counts[True], counts[False]) if own else None


def _sites(analysis: Analysis) -> list[_Site]:
    """Return the outputs of the layers that make each group, and the inputs of the convolutions that read it."""
    nodes = {node.label: node for node in analysis.graph.nodes}
    sites = []
    for number, group in enumerate(analysis.groups):
        made = [nodes[label].outputs[0] for label in dict.fromkeys(member.node for member in filters(group))]
        reading = [member for member in group.members if member.role == "in" and member.op in _CONVOLUTIONS]
        read = [nodes[label].inputs[0] for label in dict.fromkeys(member.node for member in reading)]
        for values, makes in ((made, True), (read, False)):
            sites += [site for name in values for site in _of_value(analysis, number, name, made=makes)]
    return sites


def _of_value(analysis: Analysis, group: int, name: str, *, made: bool) -> list[_Site]:
    """Return the axis of a value along which a group lies, as a site."""
    grouping = analysis.grouping
    for axis, labels in enumerate(analysis.scope.values.get(name, ())):
        if labels.live:
            atoms = grouping.atom_of[labels.expand()]
            mine = np.flatnonzero(atoms >= 0)
            mine = mine[grouping.group_of[atoms[mine]] == group]
            if len(mine):
                return [_Site(group, made, name, axis, mine, grouping.index_of[atoms[mine]])]
    return []
