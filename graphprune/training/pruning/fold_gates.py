# SPDX-License-Identifier: Apache-2.0
"""Folding: a constant factor per channel goes into the weights that read it, and the gate is not needed any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphprune.analysis.analysis import Analysis
from graphprune.training.bridge import Trainable
from graphprune.training.gates import is_passed
from graphprune.training.pruning.tensor_slices import find_slices

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan

__all__ = ["fold_factors", "foldable_groups", "of_what_stays"]


def foldable_groups(net: Trainable, analysis: Analysis) -> tuple[str, ...]:
    """Return the ids of the groups that only weights of the module read, wherever their channels are summed over.

    Layers that only pass a channel on, as depthwise convolutions do, do not count: their own readers do.
    """
    grouping = analysis.grouping
    read_by: list[set[str]] = [set() for _ in analysis.groups]
    for contraction in analysis.scope.space.contractions:
        atoms = grouping.atom_of[contraction.labels.base]
        for number in np.unique(grouping.group_of[atoms[atoms >= 0]]).tolist():
            if not is_passed(analysis.groups[number], contraction):
                read_by[number].add(contraction.node.label)
    foldable = []
    for group, readers in zip(analysis.groups, read_by, strict=True):
        weights = {member.node for member in group.members if member.role == "in" and member.initializer in net.paths}
        if readers and readers <= weights:
            foldable.append(group.id)
    return tuple(foldable)


@torch.no_grad()
def fold_factors(net: Trainable, analysis: Analysis, factors: Mapping[str, Tensor]) -> None:
    """Multiply the weights that read each atom by its factor.

    Parameters
    ----------
    net : Trainable
        Changed in place.
    analysis : Analysis
        Of the same model.
    factors : mapping of str to Tensor, shape (size,)
        By the id of a group of `foldable_groups`.
    """
    slices = find_slices(net, analysis)
    for name, factor in factors.items():
        for item in slices[name]:
            if item.role == "in":
                shape = [1] * item.tensor.dim()
                shape[item.axis] = item.tensor.shape[item.axis]
                whole = torch.ones(shape[item.axis], dtype=item.tensor.dtype, device=item.tensor.device)
                whole[item.positions.to(whole.device)] = factor.to(whole)[item.atoms.to(whole.device)]
                item.tensor.mul_(whole.reshape(shape))


def of_what_stays(factors: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Return the factors of the channels that a plan keeps, and 1 for the others.

    What goes keeps its weights: if they became zero, nothing could show that the right channels were cut.
    """
    kept = {group.id: list(group.kept) for group in plan.groups}
    staying = {name: torch.ones_like(factor) for name, factor in factors.items()}
    for name, factor in factors.items():
        staying[name][kept[name]] = factor[kept[name]]
    return staying
