# SPDX-License-Identifier: Apache-2.0
"""Taylor: an atom is as salient as the first-order change of the loss if it went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._seen import check_samples, seen_scores, settled_groups
from graphprune.solvers.evidence import needed
from graphprune.solvers.registry import one_of

if TYPE_CHECKING:
    from graphprune.solvers.criteria import Material
    from graphprune.solvers.saliency import Scores

__all__ = ["score"]


@criterion("taylor", samples=True, torch=lambda _: True)
def score(material: Material, *, form: str = "activation", samples: int = 1024) -> Scores:
    """Score atoms by the magnitude of value times gradient, added up with signs first.

    The loss is the cross-entropy of the samples' labels. Where they have none, labels are drawn from the network's own
    outputs. All groups are scored in units of the loss, so they are comparable.

    Parameters
    ----------
    material : Material
    form : {"activation", "weight"}
        Activations at all places that read the atom, the mean over samples; or the weights that make it, the mean
        over batches, which is cheaper and blind to samples that pull in opposite directions.
    samples : int
        The most samples that are looked at.

    Raises
    ------
    UsageError
        Without samples, for any other form, or if a setting is out of range.

    Notes
    -----
    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771.
    """
    one_of("form", form, ("activation", "weight"))
    material.refuse_aggregate("signed contributions are added up", hint="leave --aggregate out", allowed=("sum",))
    evidence = needed(material.evidence, "taylor")
    looked = evidence.taylor_activation if form == "activation" else evidence.taylor_weight
    gradients = looked(check_samples(samples))
    source = f"{form} times gradient of the {gradients.of}"
    return seen_scores(
        material, settled_groups(gradients.per_group), source, comparable=True, nothing="there is no gradient"
    )
