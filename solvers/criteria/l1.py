# SPDX-License-Identifier: Apache-2.0
"""L1: an atom is as salient as its filters are large, by the sum of absolute weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._norms import norm_scores

if TYPE_CHECKING:
    from graphprune.solvers.criteria import Material
    from graphprune.solvers.saliency import Scores

__all__ = ["score"]


@criterion("l1")
def score(material: Material) -> Scores:
    """Score atoms by the L1 norm of the filters that make them.

    Notes
    -----
    Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710.
    """
    return norm_scores(material, order=1)
