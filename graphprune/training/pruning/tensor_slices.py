# SPDX-License-Identifier: Apache-2.0
"""Slices: which parts of a module's tensors belong to each atom of a group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.groups import Group
from graphprune.labels.space import Role
from graphprune.training.bridge import Trainable

__all__ = ["SCALE", "STATISTIC", "Slice", "find_slices", "norms", "sums"]

SCALE = "scale"
STATISTIC = "statistic"
_NORM = "BatchNormalization"
_PARTS = {1: SCALE, 2: "shift", 3: STATISTIC, 4: STATISTIC}


@dataclass(frozen=True, eq=False)
class Slice:
    """One axis of one tensor along which a group has slices.

    Attributes
    ----------
    name : str
        Path of the tensor in the module.
    tensor : Tensor
        A parameter, or a running statistic.
    axis : int
    positions : Tensor of int64, shape (k,)
        Positions along `axis` that belong to the group.
    atoms : Tensor of int64, shape (k,)
        The atom of each.
    role : {"out", "in", "per_channel"}
        It makes the channel, reads it, or has one value per channel.
    part : str
        ``scale``, ``shift`` or ``statistic`` of a BatchNormalization, else empty.
    """

    name: str
    tensor: Tensor
    axis: int
    positions: Tensor
    atoms: Tensor
    role: Role
    part: str = ""

    def rows(self) -> Tensor:
        """Return the slices as rows, shape (k, elements)."""
        moved = self.tensor.movedim(self.axis, 0).index_select(0, self.positions.to(self.tensor.device))
        return moved.reshape(len(self.positions), -1)


def find_slices(net: Trainable, analysis: Analysis) -> dict[str, tuple[Slice, ...]]:
    """Return the slices of every group, by group id.

    Tensors that training does not change have none. A BatchNormalization that was put behind a convolution takes the
    place of the bias.

    Parameters
    ----------
    net : Trainable
    analysis : Analysis
        Of the same model.
    """
    inserted = {net.graph.nodes[index].inputs[2]: norm for index, norm in net.unfolded.items()}
    own = {id(norm): path for path, norm in net.module.named_modules()}
    by_group: dict[str, tuple[Slice, ...]] = {}
    for group in analysis.groups:
        slices: list[Slice] = []
        for member in group.members:
            place = torch.from_numpy(member.positions), torch.from_numpy(member.atoms)
            if member.initializer in inserted:
                norm = inserted[member.initializer]
                parts = zip(("weight", "bias", "running_mean", "running_var"), _PARTS.values(), strict=True)
                slices += [
                    Slice(f"{own[id(norm)]}.{name}", getattr(norm, name), 0, *place, "per_channel", part)
                    for name, part in parts
                ]
            elif member.initializer in net.paths:
                part = _PARTS.get(member.slot, "") if member.op == _NORM else ""
                path, tensor = net.paths[member.initializer], net.stored[member.initializer]
                slices.append(Slice(path, tensor, member.axis, *place, member.role, part))
        by_group[group.id] = tuple(slices)
    return by_group


def sums(slices: Iterable[Slice], size: int) -> tuple[Tensor, Tensor]:
    """Return sum of squares and number of elements of each atom over its slices, both of shape (size,)."""
    total = count = torch.zeros(size)
    for item in slices:
        rows = item.rows()
        atoms = item.atoms.to(rows.device)
        total = total.to(rows.device).index_add(0, atoms, rows.float().square().sum(1))
        count = count.to(rows.device).index_add(0, atoms, torch.full_like(atoms, rows.shape[1], dtype=torch.float32))
    return total, count


def norms(group: Group, slices: Iterable[Slice]) -> Tensor:
    """Return the norm of each atom over everything that makes and reads it, statistics left out; shape (size,)."""
    total, _ = sums([item for item in slices if item.part != STATISTIC], group.size)
    return total.sqrt()
