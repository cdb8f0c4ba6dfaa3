# SPDX-License-Identifier: Apache-2.0
"""Domino-io: an atom is as salient as the filters that go with it and the weights that read it, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._domino import Domino, domino_scores

if TYPE_CHECKING:
    from graphprune.solvers.criteria import Material
    from graphprune.solvers.saliency import Scores

__all__ = ["score"]


@criterion("domino-io")
def score(material: Material, *, base: str = "l1", scale: str = "none", samples: int = 1024) -> Scores:
    """Score atoms by the filters that make it and the columns of convolutions that read it.

    Parameters
    ----------
    material : Material
    base : {"l1", "l2", "taylor", "taylor-activation", "fisher"}
        Weights count by their absolute value, or by their square. The others look at samples: weights count by the
        magnitude of weight times gradient, or activations do, summed over each map; "fisher" is half their square.
        The loss is that of `taylor`; then groups are comparable.
    scale : {"none", "count", "weights-removed"}
        What the sum is divided by: 1, the weights or activations in it, or all weights of layers that go with the atom.
    samples : int
        The most samples that are looked at.

    Raises
    ------
    UsageError
        For any other base or scale, an aggregation other than the sum, or a base of gradients without samples.

    Notes
    -----
    Source: Persand et al., Domino Saliency Metrics: Improving Existing Channel Saliency Metrics with Structural
    Information, arXiv:2205.02131, with the weights as base metric.
    """
    return domino_scores(material, Domino(base, scale, inputs=True, samples=samples))
