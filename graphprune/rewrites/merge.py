# SPDX-License-Identifier: Apache-2.0
"""Merging: whoever read a removed channel reads a multiple of its most similar kept channel instead.

With the filters ``A_j`` of the removed and ``A_e`` of the kept channel, ``a = (A_j . A_e) / |A_e|^2`` is the multiple
that comes nearest to the removed channel; the columns of all readers become ``W[:, e] + a W[:, j]``. Only positive
multiples pass through a `Relu`. Of k equal channels, merging keeps one and changes nothing.

Sources: C-SGD (Ding et al., Centripetal SGD for Pruning Very Deep Convolutional Networks, arXiv:1904.03837) adds up the
columns of equal channels. The projection onto an exemplar that is only similar, for the exemplars of EPruner (Lin et
al., arXiv:2101.07985), is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array, Ints
from graphprune.choices import Inherit
from graphprune.errors import InternalError, PlanError, quote
from graphprune.plan.check import group_plan
from graphprune.plan.schema import Merge
from graphprune.rewrites.paths import atom_positions, find_paths
from graphprune.rewrites.readers import Sites

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.groups import Group, Member
    from graphprune.plan.schema import GroupPlan, Plan
    from graphprune.rewrites.paths import Maker, Path

__all__ = [
    "Chosen",
    "Inherit",
    "choose_merges",
    "column_changes",
    "column_edits",
    "effective_filters",
    "equal_atoms",
    "exact_merges",
    "inherit",
]

Change = Callable[[Array], Array]
Masks = Callable[[str, int], "npt.NDArray[np.bool_] | None"]
Check = Callable[["Analysis", "Group", "Path", "tuple[Merge, ...]"], None]


@dataclass(frozen=True)
class Chosen:
    """Merges of every group, and why other removed channels are not merged.

    Attributes
    ----------
    merges : tuple of tuple of Merge
    plain : dict of str to int
        Number of channels that are removed without being merged, by reason.
    """

    merges: tuple[tuple[Merge, ...], ...]
    plain: dict[str, int]


def choose_merges(analysis: Analysis, kept: Sequence[Ints]) -> Chosen:
    """Choose for each removed atom the kept one that it is merged into.

    Parameters
    ----------
    kept : sequence of ndarray of int64
        Per group the atoms that stay, ascending.

    Complexity: one product of the filters of removed and kept atoms per group.
    """
    sites = Sites(analysis)
    merges: list[tuple[Merge, ...]] = []
    plain: Counter[str] = Counter()
    for group, path, stays in zip(analysis.groups, find_paths(analysis, sites), kept, strict=True):
        removed = np.setdiff1d(np.arange(group.size), stays)
        own: tuple[Merge, ...] = ()
        why = path.why
        if len(removed) and len(stays):
            if path.grade == "scaled":
                own, why = _projected(analysis, group, path, removed, stays), "no kept channel is similar"
            elif path.grade == "equal":
                own = _repeated(equal_atoms(analysis, group, path), stays)
        if len(removed) > len(own):
            plain[why or "the whole group goes"] += len(removed) - len(own)
        merges.append(own)
    return Chosen(tuple(merges), dict(plain))


def inherit(analysis: Analysis, kept: Sequence[Ints], how: Inherit) -> tuple[tuple[GroupPlan, ...], dict[str, Any]]:
    """Return what a plan says of each group, and what it records of inheritance.

    Parameters
    ----------
    kept : sequence of ndarray of int64
        Per group the atoms that stay, ascending.
    """
    plans = tuple(group_plan(group, atoms.tolist()) for group, atoms in zip(analysis.groups, kept, strict=True))
    if how == "keep":
        return plans, {}
    chosen = choose_merges(analysis, kept)
    merged = tuple(replace(plan, merged=merges) for plan, merges in zip(plans, chosen.merges, strict=True))
    return merged, {"inherit": how, "not_merged": chosen.plain}


def column_edits(analysis: Analysis, groups: Sequence[GroupPlan]) -> dict[str, Change]:
    """Return how the merges of a plan change the weights that read channels, by stored tensor.

    Raises
    ------
    PlanError
        If channels are merged that operators between their makers and readers do not treat alike.
    """
    merges = tuple(group.merged for group in groups)
    return column_changes(analysis, merges, _check_legal) if any(merges) else {}


def column_changes(
    analysis: Analysis, merges: Sequence[tuple[Merge, ...]], check: Check | None = None
) -> dict[str, Change]:
    """Return how merges, by group, change the weights that read channels, by stored tensor.

    Parameters
    ----------
    check : callable, optional
        Called with analysis, group, path and merges of each group that has some.
    """
    moves: dict[tuple[str, int], list[tuple[Ints, Ints, npt.NDArray[np.float64]]]] = {}
    paths = find_paths(analysis, Sites(analysis)) if any(merges) else [None] * len(merges)
    for own, group, path in zip(merges, analysis.groups, paths, strict=True):
        if not own or path is None:
            continue
        if check is not None:
            check(analysis, group, path, own)
        removed = np.array([merge.removed for merge in own])
        exemplar = np.array([merge.exemplar for merge in own])
        scale = np.array([merge.scale for merge in own], dtype=np.float64)
        for member in _columns(group, path):
            places = atom_positions(member, group.size)
            if places is None:
                raise InternalError(f"the columns of {quote(member.initializer)} do not correspond")
            step = places[removed].ravel(), places[exemplar].ravel(), np.repeat(scale, places.shape[1])
            moves.setdefault((member.initializer, member.axis), []).append(step)
    return {
        tensor: _adding(axis, *(np.concatenate(parts) for parts in zip(*steps, strict=True)))
        for (tensor, axis), steps in moves.items()
    }


def exact_merges(analysis: Analysis, plan: Plan) -> Plan:
    """Let a plan merge what it removes into channels that stay and are equal to the last bit.

    Where that is all that it removes, the plan is lossless: it is held to the outputs of the model itself.
    """
    merges = []
    for group, planned, path in zip(analysis.groups, plan.groups, find_paths(analysis, Sites(analysis)), strict=True):
        stays = np.asarray(planned.kept, dtype=np.int64)
        legal = path.grade != "none" and len(stays) < group.size
        merges.append(_repeated(equal_atoms(analysis, group, path), stays) if legal else ())
    groups = tuple(replace(planned, merged=own) for planned, own in zip(plan.groups, merges, strict=True))
    lossless = all(
        len(planned.kept) + len(own) == planned.size and (not own or group.exact)
        for planned, own, group in zip(groups, merges, analysis.groups, strict=True)
    )
    return replace(plan, groups=groups, lossless=lossless)


def effective_filters(analysis: Analysis, makers: Iterable[Maker], number: int) -> npt.NDArray[np.float64]:
    """Return what makes the atoms of group `number`, affine operators and biases included.

    Returns
    -------
    ndarray of float64, shape (size, features)
    """
    grouping = analysis.grouping
    size = int(grouping.sizes[number])
    parts = []
    for maker in makers:
        node = maker.use.node
        rows = np.moveaxis(analysis.constants.array(maker.use.tensor), maker.axis, 0).astype(np.float64)
        rows = rows.reshape(len(rows), -1) * node.attribute("alpha", 1.0)
        bias = np.zeros(len(rows))
        if len(node.inputs) > 2 and node.inputs[2] in analysis.shapes.constant:
            given = analysis.constants.array(node.inputs[2]).astype(np.float64) * node.attribute("beta", 1.0)
            bias = np.broadcast_to(given.reshape(-1, given.shape[-1]).mean(axis=0) if given.ndim else given, bias.shape)
        scale, shift = maker.behind
        features = np.concatenate([rows * scale[:, None], (bias * scale + shift)[:, None]], axis=1)
        atoms = grouping.atom_of[maker.use.axes[maker.axis].expand()]
        own = np.flatnonzero((atoms >= 0) & (grouping.group_of[atoms] == number))
        ordered = np.zeros((size, features.shape[1]))
        ordered[grouping.index_of[atoms[own]]] = features[own]
        parts.append(ordered)
    return np.concatenate([np.zeros((size, 0)), *parts], axis=1)


def equal_atoms(analysis: Analysis, group: Group, path: Path, masks: Masks | None = None) -> Ints:
    """Return for each atom of a group the first one that equals it in all that is not added up, shape (size,).

    That is filters and constants, also those of a transposed convolution with kernels of its own for each channel: the
    axis along which it reads channels is the only one that its weight has of them.

    Parameters
    ----------
    path : Path
        Of the group.
    masks : callable, optional
        Gives for a tensor and an axis which slices count.
    """
    return _first_equal(analysis, group, path.compared(group), masks)


def _first_equal(analysis: Analysis, group: Group, members: Sequence[Member], masks: Masks | None = None) -> Ints:
    """Return for each atom the first one with the same slices of these members, shape (size,)."""
    parts = []
    for member in members:
        places = atom_positions(member, group.size)
        if places is None:
            continue
        array = analysis.read(member.initializer)
        for axis in range(array.ndim):
            mask = None if masks is None or axis == member.axis else masks(member.initializer, axis)
            if mask is not None and not mask.all():
                array = np.compress(mask, array, axis=axis)
        rows = np.moveaxis(array, member.axis, 0)[places.ravel()].astype(np.float64) + 0.0
        parts.append(rows.reshape(group.size, -1))
    if not parts:
        return np.arange(group.size, dtype=np.int64)
    joined = np.ascontiguousarray(np.concatenate(parts, axis=1))
    _, first, inverse = np.unique(
        joined.view(np.dtype((np.void, joined.dtype.itemsize * joined.shape[1]))).ravel(),
        return_index=True,
        return_inverse=True,
    )
    return np.asarray(first[inverse], dtype=np.int64)


def _projected(analysis: Analysis, group: Group, path: Path, removed: Ints, stays: Ints) -> tuple[Merge, ...]:
    """Merge each removed atom into the kept one that is nearest in direction, by the multiple that comes nearest."""
    number = analysis.groups.index(group)
    filters = effective_filters(analysis, path.makers, number)
    products = filters[removed] @ filters[stays].T
    lengths = np.square(filters[stays]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(lengths > 0, products / np.sqrt(lengths), -np.inf)
        scale = np.where(lengths > 0, products / lengths, 0.0)
    allowed = _tied(analysis, group, removed, stays)
    cosine = np.where(allowed, cosine, -np.inf)
    best = np.argmax(cosine, axis=1)
    return tuple(
        Merge(int(atom), int(stays[at]), float(scale[row, at]))
        for row, (atom, at) in enumerate(zip(removed, best, strict=True))
        if np.isfinite(cosine[row, at]) and scale[row, at] > 0
    )


def _tied(analysis: Analysis, group: Group, removed: Ints, stays: Ints) -> npt.NDArray[np.bool_]:
    """Return which pairs have the same slopes of every `PRelu`, shape (removed, stays)."""
    slopes = _slopes(group)
    if not slopes:
        return np.ones((len(removed), len(stays)), dtype=np.bool_)
    first = _first_equal(analysis, group, slopes)
    return np.asarray(first[removed][:, None] == first[stays])


def _slopes(group: Group) -> tuple[Member, ...]:
    """Return the slopes of every `PRelu`."""
    return tuple(member for member in group.members if member.op == "PRelu")


def _repeated(first: Ints, stays: Ints) -> tuple[Merge, ...]:
    """Merge removed atoms into kept ones that equal them."""
    exemplar: dict[int, int] = {}
    for atom in stays.tolist():
        exemplar.setdefault(int(first[atom]), atom)
    kept = frozenset(stays.tolist())
    return tuple(
        Merge(atom, exemplar[int(first[atom])], 1.0)
        for atom in range(len(first))
        if atom not in kept and int(first[atom]) in exemplar
    )


def _check_legal(analysis: Analysis, group: Group, path: Path, merges: tuple[Merge, ...]) -> None:
    """Refuse merges that nobody could carry out."""
    label = f"group {quote(group.id)}"
    if path.grade == "none":
        raise PlanError(f"{label}: its channels cannot be merged: {path.why}", hint="remove `merged` from the group")
    first = None
    if path.grade == "equal":
        first = equal_atoms(analysis, group, path)
    elif slopes := _slopes(group):
        first = _first_equal(analysis, group, slopes)
    for merge in merges:
        scaled = path.grade == "equal" and merge.scale != 1
        if scaled or (first is not None and first[merge.removed] != first[merge.exemplar]):
            raise PlanError(
                f"{label}: atoms {merge.removed} and {merge.exemplar} are not equal, and only equal channels can be "
                f"merged there: {path.why or 'they have different slopes'}",
                hint="remove this entry of `merged`; the channel is then removed without inheritance",
            )


def _columns(group: Group, path: Path) -> list[Member]:
    """Return the members whose slices are added up, each once."""
    columns = path.columns
    members = {(m.initializer, m.axis): m for m in group.members if (m.initializer, m.axis) in columns}
    return list(members.values())


def _adding(axis: int, sources: Ints, targets: Ints, scales: npt.NDArray[np.float64]) -> Change:
    """Return what adds multiples of some slices of an array to others."""

    def change(before: Array) -> Array:
        columns = np.moveaxis(before, axis, 0)
        added = columns[sources].astype(np.float64) * scales.reshape(-1, *[1] * (before.ndim - 1))
        result = columns.astype(np.float64)
        np.add.at(result, targets, added)
        return np.moveaxis(result, 0, axis).astype(before.dtype)

    return change
