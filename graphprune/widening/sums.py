# SPDX-License-Identifier: Apache-2.0
"""Sums: what makes up for copies at every place that sums over channels.

A sum that meets a channel m times is to meet it once. At a weight, the columns of the copies are divided by m. Where no
weight stands beside the channels (products of two activations, reductions), a factor per channel is put before the sum.
A convolution or an attention layer that is copied with all that it reads needs neither. All else stays narrow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from graphprune.array_types import Ints
from graphprune.model.tensors import FLOATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.space import Contraction, Use
    from graphprune.labels.vector import Labels
    from graphprune.model.graph import Node

__all__ = ["Power", "Sums", "find_sums"]

Power = Literal["share", "root", "mean"]
"""What the factor of a channel is made of: 1 / m, its root, or its part of a mean."""

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "DeformConv", "QLinearConv"})
_FUSED = {"Attention": "q_num_heads", "RotaryEmbedding": "num_heads"}
_PACKED = 3
_POWERS: dict[str, Power] = {
    **dict.fromkeys(("Conv", "Einsum", "Gemm", "MatMul", "ReduceL1", "ReduceSum"), "share"),
    **dict.fromkeys(("ReduceL2", "ReduceSumSquare"), "root"),
    "ReduceMean": "mean",
}


@dataclass
class Sums:
    """What is known of all sums over channels.

    Attributes
    ----------
    factors : list of (Contraction, Power)
        Sums that get a factor for each channel.
    whole : set of int
        Nodes that are copied with all that they read: their columns are not divided.
    narrow : dict of int to str
        By number, the groups that cannot be wider, and why.
    """

    factors: list[tuple[Contraction, Power]] = field(default_factory=list)
    whole: set[int] = field(default_factory=set)
    narrow: dict[int, str] = field(default_factory=dict)


def find_sums(analysis: Analysis) -> Sums:
    """Look at every contraction of a graph.

    Complexity: O(labels on contracted axes).
    """
    return _Search(analysis).run()


class _Search:
    """Goes through the contractions of each node."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._sums = Sums()
        self._uses: dict[int, list[Use]] = {}
        for use in analysis.scope.space.uses:
            self._uses.setdefault(use.node.index, []).append(use)

    def run(self) -> Sums:
        """Return what is found."""
        summed: dict[int, list[Contraction]] = {}
        for contraction in self._analysis.scope.space.contractions:
            summed.setdefault(contraction.node.index, []).append(contraction)
        for node in self._analysis.graph.nodes:
            if node.op_type in _FUSED and not node.domain and not self._has_whole_heads(node):
                self._hold(self._analysis.scope.values[node.inputs[0]][-1], f"{node.op_type} has a part of each head")
        for contractions in summed.values():
            self._look(contractions)
        for renormalisation in self._analysis.scope.space.renormalised:
            for labels in renormalisation.labels[renormalisation.first :]:
                self._hold(labels, f"{renormalisation.node.op_type} takes statistics over them")
        return self._sums

    def _look(self, contractions: list[Contraction]) -> None:
        """Decide about the contractions of one node; of two activations that are multiplied, one gets the factor."""
        node = contractions[0].node
        if self._is_copied(node):
            self._sums.whole.add(node.index)
            return
        done: set[bytes] = set()
        for contraction in contractions:
            atoms = self._atoms(contraction.labels)
            key = atoms.tobytes()
            if key in done or not (atoms >= 0).any():
                continue
            if not node.op_type.startswith("Reduce"):
                done.add(key)
            # A grouped convolution stores the columns of one group for all of them.
            own = np.unique(atoms)
            columns = [
                use for use, axis in self._columns(node) if np.array_equal(np.unique(self._atoms(use.axes[axis])), own)
            ]
            if columns:
                self._check_columns(contraction, columns)
            else:
                self._add_factor(contraction)

    def _check_columns(self, contraction: Contraction, columns: list[Use]) -> None:
        if len(columns) > 1:
            self._hold(contraction.labels, f"{contraction.node.op_type} reads them with several weights")
        elif not self._is_real(columns[0].tensor):
            self._hold(contraction.labels, f"the weights of {contraction.node.op_type} that read them are integers")

    def _add_factor(self, contraction: Contraction) -> None:
        node = contraction.node
        power = None if node.domain or node.attribute("group", 1) != 1 else _POWERS.get(node.op_type)
        if node.op_type == "Attention" and not node.domain:
            power = "share"
        real = self._analysis.shapes.dtypes.get(node.inputs[contraction.slot]) in FLOATS
        if power is None or not real:
            self._hold(contraction.labels, f"no factor makes up for copies in {node.op_type}")
        else:
            self._sums.factors.append((contraction, power))

    def _columns(self, node: Node) -> Iterator[tuple[Use, int]]:
        """Yield the weights of a node with each axis that reads channels."""
        for use in self._uses.get(node.index, ()):
            for axis, role in enumerate(use.roles):
                if role == "in" and use.axes[axis].live:
                    yield use, axis

    def _is_real(self, name: str) -> bool:
        constants, dtypes = self._analysis.constants, self._analysis.shapes.dtypes
        return dtypes.get(name) in FLOATS and not constants.scalings(name)

    def _is_copied(self, node: Node) -> bool:
        """Whether a node is copied with the channels: a convolution by whole groups, attention by whole heads."""
        groups = node.attribute("group", 1) if node.op_type in _CONVOLUTIONS else 1
        if groups > 1:
            return _in_blocks(self._atoms(self._analysis.scope.values[node.inputs[0]][1]), groups)
        if node.op_type == "Attention" and not node.domain:
            return len(self._analysis.scope.values[node.inputs[0]]) == _PACKED
        return False

    def _has_whole_heads(self, node: Node) -> bool:
        """Whether all channels of a head go together, where heads stand side by side on one axis."""
        axes = self._analysis.scope.values.get(node.inputs[0], ())
        heads = node.attribute(_FUSED[node.op_type], 0)
        return len(axes) != _PACKED or not heads or _in_blocks(self._atoms(axes[-1]), heads)

    def _atoms(self, labels: Labels) -> Ints:
        return self._analysis.grouping.atom_of[labels.expand()]

    def _hold(self, labels: Labels, why: str) -> None:
        """Keep the groups on an axis narrow."""
        grouping = self._analysis.grouping
        atoms = grouping.atom_of[labels.base]
        for number in np.unique(grouping.group_of[atoms[atoms >= 0]]).tolist():
            self._sums.narrow.setdefault(number, why)


def _in_blocks(atoms: Ints, blocks: int) -> bool:
    """Whether all slices in each of so many equal blocks belong together."""
    rows = atoms.reshape(blocks, -1)
    return bool((rows == rows[:, :1]).all())
