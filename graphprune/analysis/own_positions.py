# SPDX-License-Identifier: Apache-2.0
"""Own positions: every group of a convolution keeps its best outputs, not those at the same positions.

A grouped convolution that loses a slice of each group must keep equally many outputs in all of them (a transposed one:
inputs, since these lie on an axis of their own there; what is said of outputs here holds for them). Which ones is free
wherever nothing else couples outputs: then the r-th most salient output of every group forms one atom. Where something
does (a sum, a concatenation, a grouped convolution behind them), what it couples holds equally many of every group, or
goes with others until that is so (`balanced_parts`). That is a coupling like any other: what follows knows of none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.balanced_parts import bundle
from graphprune.errors import UsageError, quote
from graphprune.labels.components import components
from graphprune.labels.resolve import Resolution

if TYPE_CHECKING:
    from graphprune.analysis.groups import Carriers
    from graphprune.array_types import Array, Floats, Ints, Mask
    from graphprune.labels.operator import Scope
    from graphprune.labels.space import GroupedChannels, LabelSpace, Use

    Read = Callable[[str], Array]

__all__ = ["given_ranks", "rank_outputs", "tied_by_rank"]


def rank_outputs(scope: Scope, carriers: Carriers, resolution: Resolution, read: Read | None) -> dict[str, Ints]:
    """Rank the outputs of every conv group, wherever groups may keep positions of their own.

    The score of an output is the norm of its filter, times the factor of a BatchNormalization behind it; that of an
    input of a transposed convolution is the norm of what it adds. Convolutions that share channels are ranked together.

    Parameters
    ----------
    resolution : Resolution
        With outputs of all groups coupled by position.
    read : callable, optional
        Gives the real values of a constant. Without it the order is any: how many outputs go together is the same.

    Returns
    -------
    dict of str to ndarray of int64, shape (outputs,)
        By node, the rank of each output within its group; 0 is the most salient one. Outputs of a bundle
        (`balanced_parts.bundle`) have the same ranks in every group.

    Complexity: that of a resolution without choices.
    """
    sliced = [each for each in _sliced(scope.space, resolution) if scope.constants.computable(each.weight)]
    if not sliced:
        return {}
    component, _ = _components(scope.space, _without(scope.space, resolution, sliced), resolution)
    signature, before = carriers.signatures(component), carriers.signatures(resolution.component)
    behind = {} if read is None else _normalisations(scope)
    ranks: dict[str, Ints] = {}
    for together in _together(component, sliced):
        outputs = [each.channels.expand() for each in together]
        parts, part = np.unique(np.concatenate([component[each] for each in outputs]), return_inverse=True)
        owners = np.split(part, np.cumsum([len(each) for each in outputs])[:-1])
        counts = [_counts(own, each.groups, len(parts)) for own, each in zip(owners, together, strict=True)]
        scores = np.zeros(len(parts))
        if read is not None:
            for own, each in zip(owners, together, strict=True):
                np.add.at(scores, own, _score(each, behind, read) ** 2)
        numbers = bundle(counts, signature[parts], scores)
        by_position = np.concatenate([resolution.component[each] for each in outputs])
        if _is_finer(numbers[part], signature[parts][part], by_position, before[by_position]):
            ranks.update(
                (each.node.label, _ranks(numbers[own].reshape(each.groups, -1)))
                for own, each in zip(owners, together, strict=True)
            )
    return ranks


def _together(component: Ints, sliced: Sequence[GroupedChannels]) -> list[list[GroupedChannels]]:
    """Return convolutions by the outputs that they share with each other."""
    own = [np.unique(component[each.channels.expand()]) for each in sliced]
    size = int(component.max()) + 1
    owner = np.repeat(np.arange(size, size + len(own)), [len(each) for each in own])
    cluster = components(size + len(own), owner, np.concatenate(own))[size:]
    found: dict[int, list[GroupedChannels]] = {}
    for each, number in zip(sliced, cluster.tolist(), strict=True):
        found.setdefault(number, []).append(each)
    return list(found.values())


def _counts(owners: Ints, groups: int, parts: int) -> Ints:
    """Return how many outputs of each conv group every part holds."""
    counts = np.zeros((parts, groups), dtype=np.int64)
    np.add.at(counts, (owners, np.repeat(np.arange(groups), len(owners) // groups)), 1)
    return counts


def _is_finer(numbers: Ints, signature: Ints, by_position: Ints, signature_before: Ints) -> bool:
    """Whether bundles let outputs go in another way than positions do, and leave no more of them at the least.

    Parameters
    ----------
    numbers, by_position : ndarray of int64, shape (outputs,)
        Bundle of each output, and what it goes together with by its position.
    """
    finest = len(np.unique(numbers)), len(np.unique(by_position))
    if finest[0] < finest[1] or _least(numbers, signature) > _least(by_position, signature_before):
        return False
    pairs = np.unique(numbers * (int(by_position.max()) + 1) + by_position)
    return len(pairs) > finest[1] or finest[0] > finest[1]


def _least(atoms: Ints, signature: Ints) -> int:
    """Return how many outputs are left where each kind of atom keeps one."""
    one, sizes = np.unique(atoms, return_counts=True)
    kinds = np.zeros(len(one), dtype=np.uint64)
    np.add.at(kinds, np.searchsorted(one, atoms), np.asarray(signature, dtype=np.uint64))
    _, firsts = np.unique(kinds, return_index=True)  # of one kind, atoms are equally large
    return int(sizes[firsts].sum())


def given_ranks(space: LabelSpace, resolution: Resolution, ranks: Mapping[str, Sequence[int]]) -> dict[str, Ints]:
    """Return ranks that were recorded, of those convolutions that lose a slice of each group.

    Raises
    ------
    UsageError
        If the ranks of a group are not all numbers below its size.
    """
    given: dict[str, Ints] = {}
    for each in _sliced(space, resolution):
        if (name := each.node.label) in ranks:
            given[name] = np.asarray(ranks[name], dtype=np.int64)
            size = len(each.positions)
            whole = given[name].shape == (each.groups * size,)
            if not whole or (np.sort(given[name].reshape(each.groups, size)) != np.arange(size)).any():
                raise UsageError(
                    f"the ranks of the outputs of {quote(name)} do not number those of each of its {each.groups} "
                    f"groups from 0 to {size - 1}",
                    hint="take the ranks of a plan for this model as they are, or leave them out",
                )
    return given


def tied_by_rank(space: LabelSpace, resolution: Resolution, ranks: Mapping[str, Ints]) -> Resolution:
    """Return the resolution with outputs coupled by rank instead of position.

    Parameters
    ----------
    ranks : mapping of str to ndarray of int64, shape (outputs,)
        By node, the rank of each output within its group.
    """
    sliced = [each for each in _sliced(space, resolution) if each.node.label in ranks]
    if not sliced:
        return resolution
    by_rank = [(each.channels.expand(), each.positions[ranks[each.node.label]], each.node) for each in sliced]
    couplings = [*_without(space, resolution, sliced), *by_rank]
    component, held = _components(space, couplings, resolution)
    return Resolution(component, held[component], resolution.freezes, couplings, resolution.committed)


def _sliced(space: LabelSpace, resolution: Resolution) -> list[GroupedChannels]:
    """Return the grouped convolutions that lose a slice of each group."""
    component, frozen = resolution.component, resolution.frozen
    return [
        each
        for each in space.grouped_channels
        if component[each.positions[0]] == component[each.channels.base[0]] and not frozen[each.positions].any()
    ]


def _without(
    space: LabelSpace, resolution: Resolution, sliced: Iterable[GroupedChannels]
) -> list[tuple[Ints, Ints, object]]:
    """Return the couplings that hold, but for those of outputs with positions."""
    gone, nodes = np.zeros(space.count, dtype=np.bool_), set[int]()
    for each in sliced:
        gone[each.positions] = True
        nodes.add(each.node.index)
    left = []
    for one, other, node in resolution.couplings:
        if getattr(node, "index", -1) in nodes:
            stays = ~(gone[one] | gone[other])
            left.append((one[stays], other[stays], node))
        else:
            left.append((one, other, node))
    return left


def _components(
    space: LabelSpace, couplings: list[tuple[Ints, Ints, object]], resolution: Resolution
) -> tuple[Ints, Mask]:
    """Return the component of each label, and which components stay."""
    one, other = (np.concatenate([each[side] for each in couplings]) for side in (0, 1))
    component = components(space.count, one, other)
    held = np.zeros(int(component.max()) + 1, dtype=np.bool_)
    held[component[0]] = True
    for labels, _ in resolution.freezes:
        held[component[labels]] = True
    return component, held


def _normalisations(scope: Scope) -> dict[str, dict[int, Use]]:
    """Return by the value that a BatchNormalization reads its scale (1) and its variance (4)."""
    found: dict[str, dict[int, Use]] = {}
    for use in scope.space.uses:
        if use.node.op_type == "BatchNormalization" and use.slot in (1, 4):
            found.setdefault(use.node.inputs[0], {})[use.slot] = use
    return found


def _score(each: GroupedChannels, normalisations: Mapping[str, Mapping[int, Use]], read: Read) -> Floats:
    """Return how salient each channel is, from weights alone; folding the normalisation behind it changes nothing."""
    kernel = np.asarray(read(each.weight), dtype=np.float64)
    score: Floats = np.linalg.norm(kernel.reshape(len(kernel), -1), axis=1)
    uses = normalisations.get(each.node.outputs[0], {}) if each.are_made else {}
    if len(uses) < 2:
        return score
    scale, variance = (np.asarray(read(uses[slot].tensor), dtype=np.float64) for slot in (1, 4))
    factor: Floats = scale / np.sqrt(np.maximum(variance, 0.0) + uses[1].node.attribute("epsilon", 1e-5))
    return score * np.abs(factor)


def _ranks(bundles: Ints) -> Ints:
    """Return the rank of each output in its row, by bundle; of one bundle the first in line."""
    order = np.argsort(bundles, axis=1, kind="stable")
    return np.argsort(order, axis=1).astype(np.int64).ravel()
