# SPDX-License-Identifier: Apache-2.0
"""Domino-o: an atom is as salient as all the filters that go with it, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._domino import Domino, domino_scores

if TYPE_CHECKING:
    from graphprune.solvers.criteria import Material
    from graphprune.solvers.saliency import Scores

__all__ = ["score"]


@criterion("domino-o")
def score(material: Material, *, base: str = "l1", scale: str = "none") -> Scores:
    """Score atoms by the filters that make it.

    Parameters
    ----------
    material : Material
    base : {"l1", "l2"}
        Weights count by their absolute value, or by their square.
    scale : {"none", "count", "weights-removed"}
        What the sum is divided by: 1, the weights in it, or all weights of layers that go with the atom.

    Raises
    ------
    UsageError
        For any other base or scale, or an aggregation other than the sum.

    Notes
    -----
    Source: Persand et al., Domino Saliency Metrics: Improving Existing Channel Saliency Metrics with Structural
    Information, arXiv:2205.02131, with the weights as base metric.
    """
    return domino_scores(material, Domino(base, scale, inputs=False))
