# SPDX-License-Identifier: Apache-2.0
"""Domino saliency: an atom is worth what its removal drags along, wherever that lies.

For an atom, P are the filter rows and depthwise filters that make it, K the columns of the convolutions that read it.
Domino-o adds up the saliencies of P, Domino-io those of P and K. Other readers, such as a linear layer, are not in the
sum, but count as weights removed. The saliency of a slice is the sum of its absolute or squared weights, or of the
magnitudes of weight times gradient; or that of activations times gradients where the slice makes or reads them.

Source: Persand et al., Domino Saliency Metrics: Improving Existing Channel Saliency Metrics with Structural
Information, arXiv:2205.02131, with the weights as base metric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.criteria import criterion
from graphprune.solvers.criteria._norms import NOTHING_READ, average_of_the_rest
from graphprune.solvers.criteria._seen import check_samples, seen_scores, settled_scores
from graphprune.solvers.criteria._slices import SliceSums, atom_sum, filters
from graphprune.solvers.evidence import needed
from graphprune.solvers.registry import one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.analysis.groups import Group, Member
    from graphprune.array_types import Floats
    from graphprune.solvers.criteria import Criterion, Material, Read
    from graphprune.solvers.protocols.observed import Flow
    from graphprune.solvers.saliency import Scores


__all__ = ["Domino", "domino_io", "domino_o", "domino_scores"]

_BASES = {"l1": np.abs, "l2": np.square}
_GRADIENT_BASES = ("taylor", "taylor-activation", "fisher")
_SCALES = ("none", "count", "weights-removed")
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "DeformConv", "QLinearConv"})


@dataclass(frozen=True)
class Domino:
    """Which saliency is meant.

    Attributes
    ----------
    base : {"l1", "l2", "taylor", "taylor-activation", "fisher"}
        Weights count by their absolute value, or by their square. The others look at samples: weights count by the
        magnitude of weight times gradient, or activations do, summed over each map; "fisher" is half their square.
        The loss is that of `taylor`; then groups are comparable.
    scale : {"none", "count", "weights-removed"}
        What the sum is divided by: 1, the weights (or activations) in the sum, or all weights of layers that go with
        the atom.
    inputs : bool
        Whether the convolutions that read the atom are in the sum.
    samples : int
        The most samples that are looked at for gradients.

    Raises
    ------
    UsageError
        For any other base or scale.
    """

    base: str
    scale: str
    inputs: bool
    samples: int = 1024

    def __post_init__(self) -> None:
        one_of("base", self.base, (*_BASES, *_GRADIENT_BASES))
        one_of("scale", self.scale, _SCALES)


def domino_scores(material: Material, what: Domino) -> Scores:
    """Score atoms by what their removal drags along.

    Slices of one tensor that are both made and read by the group are counted once. A group whose channels no weight
    makes is scored by the weights that read it, and a group without either counts as average.

    Raises
    ------
    UsageError
        When an aggregation other than the sum is asked for.
    """
    material.refuse_aggregate(
        "Domino adds up everything that goes with a channel",
        hint="--set scale=count divides the sum by the weights in it",
        allowed=("sum",),
    )
    if what.base == "taylor":
        return _taylor(material, what)
    if what.base in _GRADIENT_BASES:
        return _flowing(material, what)
    masses = _Masses(material.read, _BASES[what.base])
    results = [_score(group, masses, what) for group in material.groups]
    return average_of_the_rest([scores for scores, _ in results], [source for _, source in results], material.groups)


def _registered(name: str, *, inputs: bool) -> Criterion:
    """Register the sum over the filters that make an atom, or over what reads it as well, as a criterion."""

    @criterion(name, torch=lambda given: given.get("base") in ("taylor", *_GRADIENT_BASES))
    def score(material: Material, *, base: str = "l1", scale: str = "none", samples: int = 1024) -> Scores:
        return domino_scores(material, Domino(base, scale, inputs, samples))

    return score


domino_o = _registered("domino-o", inputs=False)
domino_io = _registered("domino-io", inputs=True)


def _taylor(material: Material, what: Domino) -> Scores:
    """Score atoms by the magnitudes of weight times gradient; a weight that training does not reach is not there."""
    products = needed(material.evidence, "domino").products(check_samples(what.samples))
    masses = _Masses(products.per_tensor.__getitem__, np.abs)
    scores: list[Floats | None] = []
    for group in material.groups:
        reached = tuple(member for member in group.members if member.initializer in products.per_tensor)
        values, _ = _score(replace(group, members=reached), masses, what)
        scores.append(None if values is None else settled_scores(values))
    source = f"weight times gradient of the {products.of}, {_where(what)}"
    return seen_scores(material, scores, source, comparable=True, nothing="there is no gradient")


def _flowing(material: Material, what: Domino) -> Scores:
    """Score atoms by activations times gradients."""
    flows = needed(material.evidence, "domino").flows(check_samples(what.samples), squared=what.base == "fisher")
    weights = _Masses(material.read, np.abs)
    scores = [
        None if flow is None else settled_scores(_flow_scores(group, flow, weights, what))
        for group, flow in zip(material.groups, flows.per_group, strict=True)
    ]
    power = "squared " if what.base == "fisher" else ""
    source = f"{power}activation times gradient of the {flows.of}, {_where(what)}"
    return seen_scores(material, scores, source, comparable=True, nothing="there is no gradient")


def _flow_scores(group: Group, flow: Flow, weights: _Masses, what: Domino) -> Floats:
    sums = flow.made + flow.read if what.inputs else flow.made
    if what.scale == "none":
        return sums
    points = flow.made_points + flow.read_points if what.inputs else flow.made_points
    if what.scale == "weights-removed":
        points = weights.counts(group, filters(group), [member for member in group.members if member.role == "in"])
    return sums / np.maximum(points, 1.0)


def _where(what: Domino) -> str:
    return "where it is made and read" if what.inputs else "where it is made"


def _score(group: Group, masses: _Masses, what: Domino) -> tuple[Floats | None, str]:
    made = filters(group)
    readers = [member for member in group.members if member.role == "in"]
    counted = [member for member in readers if what.inputs and member.op in _CONVOLUTIONS]
    source = f"{what.base.upper()} of the filters"
    if counted:
        source += " and the convolutions that read them"
    if not made and not counted:
        counted, source = readers, f"{what.base.upper()} of the weights that read it (no filters)"
    if not made and not counted:
        return None, NOTHING_READ
    sums = masses.sums(group, made, counted)
    if what.scale == "none":
        return sums, source
    counts = masses.counts(group, made, counted if what.scale == "count" else readers)
    return sums / np.maximum(counts, 1.0), source


class _Masses:
    """Adds up the weights, or their number, that go with each atom of a group."""

    def __init__(self, read: Read, measure: np.ufunc) -> None:
        self._read = read
        self._measure = measure
        self._slices = SliceSums(read, measure)

    def sums(self, group: Group, made: Sequence[Member], readers: Sequence[Member]) -> Floats:
        """Return the measured weights that go with each atom, shape (size,)."""
        parts = [atom_sum(member, self._slices.of(member), group.size) for member in (*made, *readers)]
        twice = [
            _overlap(self._measure(_block(self._read(maker.initializer), maker, reader)), maker, reader, group.size)
            for maker, reader in _pairs(made, readers)
        ]
        return _added(parts, group.size) - _added(twice, group.size)

    def counts(self, group: Group, made: Sequence[Member], readers: Sequence[Member]) -> Floats:
        """Return the number of weights that go with each atom, shape (size,)."""
        parts = []
        for member in (*made, *readers):
            shape = self._read(member.initializer).shape
            length = shape[member.axis]
            parts.append(atom_sum(member, np.full(length, np.prod(shape) / length), group.size))
        twice = [
            _overlap(np.ones_like(_block(self._read(maker.initializer), maker, reader)), maker, reader, group.size)
            for maker, reader in _pairs(made, readers)
        ]
        return _added(parts, group.size) - _added(twice, group.size)


def _added(parts: Sequence[Floats], size: int) -> Floats:
    total: Floats = np.sum([np.zeros(size), *parts], axis=0)
    return total


def _pairs(made: Sequence[Member], readers: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Return the members of one tensor that makes the channels which it reads."""
    return [(maker, reader) for maker in made for reader in readers if maker.initializer == reader.initializer]


def _block(array: npt.NDArray[np.generic], maker: Member, reader: Member) -> Floats:
    """Return the weights between the places that two members name, shape (made, read, others)."""
    block = np.moveaxis(array, (maker.axis, reader.axis), (0, 1))[np.ix_(maker.positions, reader.positions)]
    return block.reshape(*block.shape[:2], -1).astype(np.float64)


def _overlap(block: Floats, maker: Member, reader: Member, size: int) -> Floats:
    """Add up what is both made and read by the same atom, shape (size,)."""
    same = maker.atoms[:, None] == reader.atoms
    atoms = np.broadcast_to(maker.atoms[:, None], same.shape)
    return np.bincount(atoms[same], weights=block.sum(axis=2)[same], minlength=size).astype(np.float64)
