# SPDX-License-Identifier: Apache-2.0
"""The label space: everything the operator rules say about one graph.

Rules only ever *add* facts here: couplings, freezes, choices, contractions, uses of constants
and costs. Nothing is decided before all rules have run, because what forbids an alternative
comes later in the graph (`resolve.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from graphprune.labels.vector import Ints, Labels, check_length, matched, stay
from graphprune.model.graph import Node

__all__ = [
    "Alternative",
    "Axes",
    "Choice",
    "Contraction",
    "GroupedChannels",
    "LabelSpace",
    "Mean",
    "MultiplyAdds",
    "Reason",
    "Renormalisation",
    "Role",
    "Use",
    "other_way",
]

Axes = tuple[Labels, ...]
Role = Literal["out", "in", "per_channel", ""]
Mean = Literal["", "masked", "kept"]


@dataclass(frozen=True)
class Reason:
    """Why labels are frozen: a kind for counting, the node, and a sentence for people."""

    kind: str
    node: Node | None
    text: str


@dataclass(frozen=True, eq=False)
class Use:
    """A constant tensor as one node reads it.

    Attributes
    ----------
    tensor : str
        Name of the value that the node reads.
    axes : tuple of Labels
        Labels along each axis; a slice is kept where its label is kept.
    roles : tuple of str
        Per axis "out" (makes the channel), "in" (reads it), "per_channel", or "" where nothing is live.
    maskable : bool
        Whether setting removed slices to zero masks the channel. Divisors and running variances are not.
    follows : bool
        It is a scale between a stored tensor and its reader: it is sliced where and as that tensor is.
    """

    node: Node
    slot: int
    tensor: str
    axes: Axes
    roles: tuple[Role, ...]
    maskable: bool = True
    follows: bool = False


@dataclass(frozen=True, eq=False)
class Contraction:
    """A node that sums over a labelled axis of an activation: where a removed channel is masked.

    `mean` marks an average. "masked": the contract is the mean of the masked values, so the pruned
    graph scales its result by kept / total. "kept": the contract is the mean over the kept slices
    (renormalised), which is what the pruned graph computes anyway. `zero_point` names the value that
    stands for zero, where the activation consists of integers that stand for real numbers.
    """

    node: Node
    slot: int
    axis: int
    labels: Labels
    mean: Mean = ""
    zero_point: str = ""


@dataclass(frozen=True, eq=False)
class Renormalisation:
    """A normalisation over labelled axes whose statistics run over the kept slices only.

    The pruned graph computes just that; the masked original needs it spelt out (`oracle.py`).
    """

    node: Node
    first: int
    labels: Axes


@dataclass(frozen=True, eq=False)
class MultiplyAdds:
    """Multiply-adds of a node: a sum of products, each a scale times the kept lengths of its axes.

    `inner` and `outer` are its channel axes: what it sums over, and what it makes.
    """

    node: Node
    products: tuple[tuple[int, Axes], ...]
    inner: Labels
    outer: Labels


@dataclass(frozen=True, eq=False)
class Alternative:
    """One way in which a choice may come out: these couplings, and these labels frozen.

    `name` says which axes carry the channels, for the plan and for explanations. `sides` counts the
    channel axes that it frees one by one, so that alternatives are compared by atoms per axis.
    """

    name: str
    left: Ints
    right: Ints
    frozen: Ints
    sides: int = 1


@dataclass(frozen=True, eq=False)
class Choice:
    """Alternatives of which exactly one will hold."""

    node: Node
    alternatives: tuple[Alternative, ...]


def other_way(node: Node, taken: Alternative) -> Reason:
    """Return why what a choice leaves out stays."""
    if node.op_type in _RESHAPING:
        return Reason("other axis of a reshape", node, "another axis carries the channels")
    return Reason("other choice", node, f"here it is {taken.name} that may go")


_RESHAPING = frozenset({"Flatten", "Reshape"})


@dataclass(frozen=True, eq=False)
class GroupedChannels:
    """Channels of a grouped convolution of which every conv group keeps equally many, but not of need the same.

    They are what lies along the first axis of the kernel: outputs of `Conv`, inputs of `ConvTranspose`.

    Attributes
    ----------
    weight : str
        Name of the kernel as the node reads it.
    groups : int
    channels : Labels
        All of these channels, group after group.
    positions : ndarray of int64
        Labels of the positions within a group, with which channels are coupled where a slice of each group goes.
    """

    node: Node
    weight: str
    groups: int
    channels: Labels
    positions: Ints

    @property
    def are_made(self) -> bool:
        """Whether the node makes these channels, and does not read them."""
        return self.node.op_type != "ConvTranspose"


@dataclass(eq=False)
class LabelSpace:
    """All labels of a graph and all facts about them.

    Attributes
    ----------
    count : int
        Labels are ``1 .. count - 1``; label 0 stays.
    couplings : list of (left, right, node)
        Label vectors of equal length, united elementwise, with the node that demands it.
    freezes : list of (labels, reason)
    barriers : dict of int to Reason
        By node index, why a node passes no channels on, whether it read any or not.
    approximate : list of label vectors
        Labels that pass through a renormalised operator: removing them is not exact.
    grouped_channels : list of GroupedChannels
    batch, contracted : list of label vectors
        Axes of products of two activations: batch axes are heads, contracted ones head dimensions.
    """

    count: int = 1
    couplings: list[tuple[Ints, Ints, Node]] = field(default_factory=list)
    freezes: list[tuple[Ints, Reason]] = field(default_factory=list)
    barriers: dict[int, Reason] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    renormalised: list[Renormalisation] = field(default_factory=list)
    approximate: list[Ints] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    costs: list[MultiplyAdds] = field(default_factory=list)
    grouped_channels: list[GroupedChannels] = field(default_factory=list)
    batch: list[Ints] = field(default_factory=list)
    contracted: list[Ints] = field(default_factory=list)

    def fresh(self, length: int, repeat: int = 1, tile: int = 1) -> Labels:
        """Return a vector of new labels; an axis of length 1 stays."""
        if length * repeat * tile == 1:
            return stay(1)
        return Labels(self.joined(length).base, repeat, tile)

    def joined(self, length: int) -> Labels:
        """Return new labels of slices that stand beside others on an axis: even a single one may go."""
        check_length(length)
        base = np.arange(self.count, self.count + length, dtype=np.int64)
        self.count += length
        return Labels(base)

    def unite(self, first: Labels, second: Labels, node: Node) -> None:
        """Let equal positions live and die together; a position that stays freezes the other."""
        if first is second or (first.base is second.base and first.repeat == second.repeat):
            return
        if not (first.live or second.live):
            return
        left, right = matched(first, second)
        apart = (left != 0) & (right != 0)
        if not apart.all():
            self.freeze(
                (left + right)[~apart], Reason("fixed axis", node, "ties the channels to an axis that stays whole")
            )
            left, right = left[apart], right[apart]
        if len(left):
            self.couplings.append((left, right, node))

    def freeze(self, labels: Labels | Ints, reason: Reason) -> None:
        """Keep all these labels, for `reason`."""
        array = labels.base if isinstance(labels, Labels) else labels
        array = array[array != 0]
        if len(array):
            self.freezes.append((array, reason))

    def choose(self, node: Node, alternatives: Sequence[Alternative]) -> None:
        """Record a choice; a single alternative holds at once, so that nobody looks past it."""
        if len(alternatives) == 1:
            only = alternatives[0]
            self.freeze(only.frozen, other_way(node, only))
            self.unite(Labels(only.left), Labels(only.right), node)
        elif alternatives:
            self.choices.append(Choice(node, tuple(alternatives)))
