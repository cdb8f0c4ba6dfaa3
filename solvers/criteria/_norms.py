# SPDX-License-Identifier: Apache-2.0
"""Filter norms: the size of the slices that make each atom, added up over the members of its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.criteria._slices import SliceSums, aggregated, atom_sum, filters
from graphprune.solvers.saliency import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.analysis.groups import Group, Member
    from graphprune.solvers.criteria import Aggregate, Material

__all__ = ["NOTHING_READ", "average_of_the_rest", "norm_scores"]

NOTHING_READ = "average of the other groups (no weights to read)"


def norm_scores(material: Material, order: int, *, squared: bool = False) -> Scores:
    """Score atoms by the L1 or L2 norm of their slices, or its square.

    The slices of an atom within one member are one vector, so that flattening a feature map does not change the
    scale; the norms of the members are added, or aggregated as the material says. A group whose channels no weight
    makes is scored by the weights that read it, and a group without either counts as average.

    Parameters
    ----------
    material : Material
    order : int
        1 or 2.
    squared : bool
        Aggregate the squares of L2 norms.
    """
    sums = SliceSums(material.read, np.abs if order == 1 else np.square)
    norm = _Norm(sums, f"{'squared ' if squared else ''}L{order} norm", root=order == 2 and not squared)
    results = [norm.of(group, material.aggregate or "sum") for group in material.groups]
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


@dataclass(frozen=True, eq=False)
class _Norm:
    sums: SliceSums
    name: str
    root: bool

    def of(self, group: Group, aggregate: Aggregate) -> tuple[npt.NDArray[np.float64] | None, str]:
        """Return the scores of a group, None if nothing is known of it, and what they come from."""
        if members := filters(group):
            return self._together(group, members, aggregate), f"{self.name} of the filters"
        if members := [member for member in group.members if member.role == "in"]:
            return self._together(group, members, aggregate), f"{self.name} of the weights that read it (no filters)"
        return None, NOTHING_READ

    def _together(self, group: Group, members: list[Member], aggregate: Aggregate) -> npt.NDArray[np.float64]:
        masses = [atom_sum(member, self.sums.of(member), group.size) for member in members]
        return aggregated([np.sqrt(mass) for mass in masses] if self.root else masses, aggregate)
