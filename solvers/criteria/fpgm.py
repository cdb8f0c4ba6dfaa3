# SPDX-License-Identifier: Apache-2.0
"""FPGM: an atom close to all others can be replaced by them, so what lies farthest out stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._norms import NOTHING_READ, average_of_the_rest
from graphprune.solvers.criteria._slices import aggregated, filters
from graphprune.solvers.filters import coupled_filters, mean_distances, member_filters

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.analysis.groups import Group
    from graphprune.solvers.criteria import Material
    from graphprune.solvers.saliency import Scores

__all__ = ["score"]


@criterion("fpgm")
def score(material: Material) -> Scores:
    """Score atoms by their mean distance to the atoms of their group, that is, from its geometric median.

    Distances are those of the signed coupled filters (all filters that make an atom, each member on the same scale),
    divided by the square root of the number of members, so that groups of any size and number of members have scores
    of the same magnitude. With an aggregation, distances are taken in each member by itself, and aggregated.

    Notes
    -----
    Source: He et al., Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration, CVPR
    2019, arXiv:1811.00250: the sum of the distances to all filters of the layer, which ranks as their mean does.

    Complexity: O(n**2 * features) per group of n atoms.
    """
    results = [_score(group, material) for group in material.groups]
    return average_of_the_rest([scores for scores, _ in results], [source for _, source in results], material.groups)


def _score(group: Group, material: Material) -> tuple[npt.NDArray[np.float64] | None, str]:
    members = filters(group)
    source = "distance of the filters"
    if not members:
        members = [member for member in group.members if member.role == "in"]
        source = "distance of the weights that read it (no filters)"
    if not members:
        return None, NOTHING_READ
    if material.aggregate:
        apart = [member_filters(member, material.read(member.initializer), group.size) for member in members]
        return aggregated([mean_distances(rows) for rows in apart], material.aggregate), source
    return mean_distances(coupled_filters(group, material.read)) / np.sqrt(len(members)), source
