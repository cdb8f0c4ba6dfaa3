# SPDX-License-Identifier: Apache-2.0
"""Fisher: an atom is as salient as the second-order change of the loss if it went, by the empirical Fisher matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._seen import check_samples, seen_scores, settled_groups
from graphprune.solvers.evidence import needed

if TYPE_CHECKING:
    from graphprune.solvers.criteria import Material
    from graphprune.solvers.saliency import Scores

__all__ = ["score"]


@criterion("fisher", samples=True, torch=lambda _: True)
def score(material: Material, *, samples: int = 1024) -> Scores:
    """Score atoms by half the mean over samples of the squared gradient of a factor on the atom.

    The loss is that of `taylor`. With labels drawn from the network's own outputs the mean is an estimate of the
    curvature of the divergence from the network as it is, which has no first-order term. Groups are comparable.

    Parameters
    ----------
    material : Material
    samples : int
        The most samples that are looked at.

    Raises
    ------
    UsageError
        Without samples, or if a setting is out of range.

    Notes
    -----
    Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, arXiv:1801.05787.
    """
    material.refuse_aggregate("signed contributions are added up", hint="leave --aggregate out", allowed=("sum",))
    gradients = needed(material.evidence, "fisher").fisher(check_samples(samples))
    source = f"squared gradient of the {gradients.of}"
    return seen_scores(
        material, settled_groups(gradients.per_group), source, comparable=True, nothing="there is no gradient"
    )
