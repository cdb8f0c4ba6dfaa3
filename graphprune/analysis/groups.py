# SPDX-License-Identifier: Apache-2.0
"""Coupled channel groups: atoms that may be exchanged for one another, and where they live.

An *atom* is one component of the label space: the slices that go together. Atoms that touch
the same axes of the same tensors equally often form a *group*, one width for the solvers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphprune.analysis.polynomial import Length
from graphprune.array_types import Ints
from graphprune.errors import InternalError
from graphprune.labels.operator import Scope
from graphprune.labels.resolve import Resolution
from graphprune.labels.space import Role, Use
from graphprune.labels.vector import Labels

__all__ = ["Carriers", "Group", "Grouping", "Member", "form_groups"]


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of a stored tensor along which a group has slices.

    Attributes
    ----------
    initializer : str
        The stored tensor: an initializer, the output of a `Constant` node, or a value that surgery folds.
    axis : int
    role : {"out", "in", "per_channel"}
        It makes the channel, reads it, or has one value per channel.
    op, slot, node : str, int, str
        Operator, input index and name of the node that reads the tensor.
    positions : ndarray of int64, shape (k,), increasing
        Positions along `axis` that belong to the group.
    atoms : ndarray of int64, shape (k,)
        For each position, the index of its atom within the group.
    masked : bool
        Whether zeroing removed positions in the original file masks the channel.
    """

    initializer: str
    axis: int
    role: Role
    op: str
    slot: int
    node: str
    positions: Ints
    atoms: Ints
    masked: bool


@dataclass(frozen=True, eq=False)
class Group:
    """Atoms with one common width.

    Attributes
    ----------
    id, name : str
        "g000", "g001", ... in graph order; the name is that of the first producing node.
    size : int
        Number of atoms.
    channels : int
        Channels per atom on the widest producing axis.
    members : tuple of Member
    exact : bool
        Whether removing atoms gives exactly the masked original.
    """

    id: str
    name: str
    size: int
    channels: int
    members: tuple[Member, ...]
    exact: bool = True


class Grouping:
    """Which atom and group every label belongs to.

    Attributes
    ----------
    atom_of : ndarray of int64, shape (labels,)
        Atom number, -1 where the label stays. Atoms of one group are consecutive.
    group_of, index_of : ndarray of int64, shape (atoms,)
        Group of each atom, and its index within the group.
    sizes : ndarray of int64, shape (groups,)
    """

    def __init__(self, atom_of: Ints, group_of: Ints) -> None:
        self.atom_of = atom_of
        self.group_of = group_of
        self.sizes: Ints = np.bincount(group_of).astype(np.int64) if len(group_of) else np.zeros(0, dtype=np.int64)
        self.starts: Ints = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.sizes)])
        self.index_of: Ints = np.arange(len(group_of), dtype=np.int64) - self.starts[group_of]
        self._lengths: dict[tuple[int, int, int], tuple[Ints, Length]] = {}

    def length(self, labels: Labels) -> Length:
        """Return the number of kept slices of an axis as a function of the widths."""
        key = id(labels.base), labels.repeat, labels.tile
        if key not in self._lengths:  # thousands of axes carry the very same labels
            self._lengths[key] = labels.base, self._counted(labels)
        return self._lengths[key][1]

    def _counted(self, labels: Labels) -> Length:
        atoms = self.atom_of[labels.base]
        times = labels.repeat * labels.tile
        live = atoms[atoms >= 0]
        constant = (len(atoms) - len(live)) * times
        counts = (
            np.bincount(self.group_of[live], minlength=len(self.sizes)) if len(live) else np.zeros(0, dtype=np.int64)
        )
        groups = np.flatnonzero(counts)
        total = counts[groups] * times
        if (total % self.sizes[groups]).any():
            raise InternalError("the atoms of a group do not touch an axis equally often")
        return Length(len(labels), constant, groups.astype(np.int64), (total // self.sizes[groups]).astype(np.int64))

    def kept(self, labels: Labels, keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which slices of an axis stay, given which atoms do (bool, shape (atoms,))."""
        stays = np.append(keep, True)  # atom -1 indexes the last entry
        return labels.spread(stays[self.atom_of[labels.base]])

    def count(self, labels: Labels, keep: npt.NDArray[np.bool_]) -> int:
        """Return how many slices of an axis stay, without writing them out."""
        stays = np.append(keep, True)
        return int(stays[self.atom_of[labels.base]].sum()) * labels.repeat * labels.tile


class Carriers:
    """Which axes carry which labels: what makes atoms exchangeable. One serves every resolution of a label space.

    Parameters
    ----------
    scope : Scope
        After the label pass.

    Attributes
    ----------
    weighted : ndarray of int64
        Labels on axes of constants.
    """

    def __init__(self, scope: Scope) -> None:
        empty = np.zeros(0, dtype=np.int64)
        vectors = list(_distinct(scope))
        random = np.random.default_rng(0)
        tokens = [int(random.integers(1, 2**63)) * each.repeat * each.tile % 2**64 for each in vectors]
        self._labels = np.concatenate([empty, *(each.base for each in vectors)])
        self._tokens = np.repeat(np.array(tokens, dtype=np.uint64), [len(each.base) for each in vectors])
        self.weighted = np.concatenate([empty, *(axis.base for use in scope.space.uses for axis in use.axes)])

    def signatures(self, component: Ints) -> npt.NDArray[np.uint64]:
        """Return a number for each component; equal where components are on the same axes equally often."""
        signature = np.zeros(int(component.max()) + 1, dtype=np.uint64)
        np.add.at(signature, component[self._labels], self._tokens)
        return signature


def form_groups(carriers: Carriers, resolution: Resolution) -> Grouping:
    """Give numbers to the atoms and sort them into groups.

    Only components that a weight carries count: where nothing is stored, nothing is gained.
    Activation axes take part in the signature, so that every axis keeps at least one slice. An
    atom that is alone in its group stays: its width could only be what it is.

    Complexity: O(labels on distinct axes).
    """
    component, frozen = resolution.component, resolution.frozen
    count = int(component.max()) + 1
    weighted = np.zeros(count, dtype=np.bool_)
    weighted[component[carriers.weighted]] = True
    weighted[component[frozen]] = False
    first = np.full(count, len(component), dtype=np.int64)
    np.minimum.at(first, component, np.arange(len(component)))
    live = np.flatnonzero(weighted)
    return _number(component, live, carriers.signatures(component)[live], first[live])


def _distinct(scope: Scope) -> Iterable[Labels]:
    """Every different label vector of an activation or a constant, once."""
    seen: dict[tuple[int, int, int], Labels] = {}
    for axes in (*scope.values.values(), *(use.axes for use in scope.space.uses)):
        for labels in axes:
            if labels.live:
                seen.setdefault((id(labels.base), labels.repeat, labels.tile), labels)
    return seen.values()


def _number(component: Ints, live: Ints, signature: npt.NDArray[np.uint64], first: Ints) -> Grouping:
    """Order groups by their first label, and atoms within a group by theirs."""
    _, inverse, counts = np.unique(signature, return_inverse=True, return_counts=True)
    several = counts[inverse] > 1
    live, first, inverse = live[several], first[several], inverse[several]
    atom_of = np.full(int(component.max()) + 2, -1, dtype=np.int64)
    if not len(live):
        return Grouping(atom_of[component], np.zeros(0, dtype=np.int64))
    leader = np.full(int(inverse.max()) + 1, len(component), dtype=np.int64)
    np.minimum.at(leader, inverse, first)
    order = np.lexsort((first, leader[inverse]))
    _, group_of = np.unique(leader[inverse][order], return_inverse=True)
    atom_of[live[order]] = np.arange(len(live))
    return Grouping(atom_of[component], group_of.astype(np.int64))


def describe(scope: Scope, grouping: Grouping, shared: frozenset[str]) -> tuple[Group, ...]:
    """List the groups with their members.

    Parameters
    ----------
    shared : frozenset of str
        Stored tensors whose users keep different slices; zeroing them in place masks too much.
    """
    members: list[list[Member]] = [[] for _ in grouping.sizes]
    seen: set[tuple[str, int, int, bytes]] = set()
    for use in scope.space.uses:
        root = scope.constants.trace(use.tensor)
        for axis, labels in enumerate(use.axes):
            stored = root.axes[axis]
            if stored is None or not labels.live:
                continue
            for group, member in _members(use, axis, labels, grouping):
                key = (root.tensor, stored, group, member.positions.tobytes())
                if key not in seen:
                    seen.add(key)
                    masked = use.maskable and root.tensor not in shared
                    members[group].append(
                        Member(
                            root.tensor,
                            stored,
                            member.role,
                            member.op,
                            member.slot,
                            member.node,
                            member.positions,
                            member.atoms,
                            masked,
                        )
                    )
    inexact = _inexact(scope, grouping)
    return tuple(
        Group(
            f"g{number:03d}",
            _name(own),
            int(size),
            _channels(own, int(size)),
            tuple(own),
            exact=number not in inexact,
        )
        for number, (size, own) in enumerate(zip(grouping.sizes, members, strict=True))
    )


def _inexact(scope: Scope, grouping: Grouping) -> set[int]:
    """Return the groups with channels that pass through a renormalised operator."""
    carried: set[int] = set()
    for labels in scope.space.approximate:
        atoms = grouping.atom_of[labels]
        carried.update(np.unique(grouping.group_of[atoms[atoms >= 0]]).tolist())
    return carried


def _members(use: Use, axis: int, labels: Labels, grouping: Grouping) -> Iterable[tuple[int, Member]]:
    """Members of all groups that have slices on one axis."""
    atoms = grouping.atom_of[labels.expand()]
    positions = np.flatnonzero(atoms >= 0)
    owners = grouping.group_of[atoms[positions]]
    for group in np.unique(owners).tolist():
        own = positions[owners == group]
        role: Role = use.roles[axis] or "per_channel"
        index = grouping.index_of[atoms[own]]
        yield (
            group,
            Member(use.tensor, axis, role, use.node.op_type, use.slot, use.node.label, own, index, use.maskable),
        )


def _name(members: list[Member]) -> str:
    makers = [member for member in members if member.role == "out"] or members
    return makers[0].node if makers else ""


def _channels(members: list[Member], size: int) -> int:
    makers = [member for member in members if member.role == "out"] or members
    return max((len(member.positions) // size for member in makers), default=1)
