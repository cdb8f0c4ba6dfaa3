# SPDX-License-Identifier: Apache-2.0
"""Random: atoms in a drawn order, the control that every other criterion has to beat."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.criteria import criterion
from graphprune.solvers.saliency import Scores

if TYPE_CHECKING:
    from graphprune.analysis.groups import Group
    from graphprune.solvers.criteria import Material

__all__ = ["score"]


@criterion("random")
def score(material: Material) -> Scores:
    """Score the atoms of each group in a drawn order; nothing is read.

    A group's order depends on the seed and its id alone, not on the other groups. All groups have the same mean
    score, so that chance ranks the atoms within a group but not the groups.

    Raises
    ------
    UsageError
        When an aggregation is asked for: there is nothing to aggregate.
    """
    material.refuse_aggregate("drawn scores belong to no member", hint="leave --aggregate out")
    drawn = tuple(_drawn(group, material.seed) for group in material.groups)
    return Scores(drawn, ("random order",) * len(drawn))


def _drawn(group: Group, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    generator = np.random.default_rng([seed, zlib.crc32(group.id.encode())])
    return (generator.permutation(group.size) + 0.5) / group.size
