# SPDX-License-Identifier: Apache-2.0
"""Filter norms: the size of the slices that make each atom, added up over the members of its group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.criteria._slices import SliceSums, aggregated, atom_sum, filters
from graphprune.solvers.saliency import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.groups import Group, Member
    from graphprune.solvers.criteria import Aggregate, Material

__all__ = ["NOTHING_READ", "average_of_the_rest", "norm_scores"]

NOTHING_READ = "average of the other groups (no weights to read)"


def norm_scores(material: Material, order: int) -> Scores:
    """Score atoms by the L1 or L2 norm of their slices.

    The slices of an atom within one member are one vector, so that flattening a feature map does not change the
    scale; the norms of the members are added, or aggregated as the material says. A group whose channels no weight
    makes is scored by the weights that read it, and a group without either counts as average.

    Parameters
    ----------
    material : Material
    order : int
        1 or 2.
    """
    sums = SliceSums(material.read, np.abs if order == 1 else np.square)
    results = [_score(group, sums, order, material.aggregate or "sum") for group in material.groups]
    return average_of_the_rest([scores for scores, _ in results], [source for _, source in results], material.groups)


def average_of_the_rest(
    scores: Sequence[npt.NDArray[np.float64] | None], sources: Sequence[str], groups: Sequence[Group]
) -> Scores:
    """Fill in the groups of which nothing is known, None, with the average importance of the others."""
    means = [float(values.mean()) for values in scores if values is not None and np.isfinite(values).all()]
    average = float(np.mean(means)) if means else 1.0
    filled = (
        np.full(group.size, average) if values is None else values for group, values in zip(groups, scores, strict=True)
    )
    return Scores(tuple(filled), tuple(sources))


def _score(
    group: Group, sums: SliceSums, order: int, aggregate: Aggregate
) -> tuple[npt.NDArray[np.float64] | None, str]:
    if members := filters(group):
        return _together(group, members, sums, order, aggregate), f"L{order} norm of the filters"
    if members := [member for member in group.members if member.role == "in"]:
        source = f"L{order} norm of the weights that read it (no filters)"
        return _together(group, members, sums, order, aggregate), source
    return None, NOTHING_READ


def _together(
    group: Group, members: list[Member], sums: SliceSums, order: int, aggregate: Aggregate
) -> npt.NDArray[np.float64]:
    masses = [atom_sum(member, sums.of(member), group.size) for member in members]
    return aggregated([mass if order == 1 else np.sqrt(mass) for mass in masses], aggregate)
