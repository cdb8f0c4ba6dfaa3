# SPDX-License-Identifier: Apache-2.0
"""HRank: an atom is as salient as the rank of its feature maps is high, on average over samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._seen import check_samples, seen_scores, settled_groups
from graphprune.solvers.evidence import needed

if TYPE_CHECKING:
    from graphprune.solvers.criteria import Material
    from graphprune.solvers.saliency import Scores

__all__ = ["score"]


@criterion("hrank", samples=True)
def score(material: Material, *, samples: int = 128) -> Scores:
    """Score atoms by the mean rank of their feature maps, behind the activation, as the readers of the group see them.

    Where several readers see different maps of an atom, their ranks are averaged. A group without maps of at least two
    rows and columns is ranked by L2 norms. Ranks depend on the size of the maps, so groups are not comparable.

    Parameters
    ----------
    material : Material
    samples : int
        The most samples that are looked at; the average settles after few.

    Raises
    ------
    UsageError
        Without samples, or if a setting is out of range.

    Notes
    -----
    Source: Lin et al., HRank: Filter Pruning using High-Rank Feature Map, CVPR 2020, arXiv:2002.10179.
    """
    material.refuse_aggregate("ranks are those of feature maps", hint="leave --aggregate out", allowed=("mean",))
    ranks = settled_groups(needed(material.evidence, "hrank").map_ranks(check_samples(samples)))
    return seen_scores(material, ranks, "mean rank of its feature maps", comparable=False, nothing="all maps are 0")
