# SPDX-License-Identifier: Apache-2.0
"""Sites: the places where weights read channels, and whether they may be given other values.

A site is a contraction of an activation with a constant weight. Its *columns* are the slices of the weight along the
contracted axis, its *rows* those along the axis that it makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from graphprune.model.tensors import FLOATS

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.space import Contraction
    from graphprune.labels.vector import Labels
    from graphprune.model.graph import Node

__all__ = ["Reader", "Sites", "goes_by_groups"]


@dataclass(frozen=True, eq=False)
class Reader:
    """One contraction of an activation with a weight.

    Attributes
    ----------
    node : Node
    slot, axis : int
        The activation that is read, and its contracted axis.
    weight : int
        Input with the weight.
    column, row : int
        Axes of the weight as the node reads it: the contracted one, and the one that it makes.
    tensor : str
        Where the weight is stored, or the computed value itself.
    stored_column : int or None
        The contracted axis of what is stored; None where it has none.
    labels : Labels
        Of the contracted axis.
    """

    node: Node
    slot: int
    axis: int
    weight: int
    column: int
    row: int | None
    tensor: str
    stored_column: int | None
    labels: Labels

    @property
    def source(self) -> str:
        """The activation."""
        return self.node.inputs[self.slot]


class Sites:
    """All sites of a graph, by node and slot."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self.contractions = tuple(analysis.scope.space.contractions)
        sites = [self._site(contraction) for contraction in self.contractions]
        self.of: Mapping[tuple[int, int], Reader] = {
            (site.node.index, site.slot): site for site in sites if site is not None
        }

    def at(self, contraction: Contraction) -> Reader | None:
        """Return the site of a contraction; None where no weight stands beside the activation."""
        site = self.of.get((contraction.node.index, contraction.slot))
        return site if site is not None and site.axis == contraction.axis else None

    def within_groups(self, contraction: Contraction) -> Reader | None:
        """Return the site of a grouped convolution that loses the same slices of each group.

        Its columns are those of one group, and stand for the same ones of all.
        """
        return self._grouped.get((contraction.node.index, contraction.slot))

    def editable(self, site: Reader) -> bool:
        """Whether the stored weight can be given other values: no other kind of reader sees them."""
        return site.tensor in self._editable

    @cached_property
    def _grouped(self) -> Mapping[tuple[int, int], Reader]:
        sites = [self._site_within(contraction) for contraction in self.contractions]
        return {(site.node.index, site.slot): site for site in sites if site is not None}

    def _site_within(self, contraction: Contraction) -> Reader | None:
        node, slot = contraction.node, contraction.slot
        if node.domain or node.op_type != "Conv" or slot != 0 or node.attribute("group", 1) == 1:
            return None
        name = node.inputs[1]
        if name not in self._analysis.shapes.constant or goes_by_groups(self._analysis, node):
            return None
        root = self._analysis.constants.trace(name)
        return Reader(node, slot, 1, 1, 1, 0, root.tensor, root.axes[1], contraction.labels)

    @cached_property
    def _editable(self) -> frozenset[str]:
        analysis, sites = self._analysis, [*self.of.values(), *self._grouped.values()]
        readers: dict[str, set[tuple[int, int]]] = {}
        columns: dict[str, set[int | None]] = {}
        for site in sites:
            readers.setdefault(site.tensor, set()).add((site.node.index, site.weight))
            columns.setdefault(site.tensor, set()).add(site.stored_column)
        editable = set()
        for tensor, known in readers.items():
            stored = analysis.constants.stored(tensor)
            plain = stored is not None and stored.data_type in FLOATS and None not in columns[tensor]
            others = {(node.index, slot) for node, slot in analysis.constants.readers(tensor)} - known
            if plain and len(columns[tensor]) == 1 and not others and not self._scaled(tensor, sites):
                editable.add(tensor)
        return frozenset(editable)

    def _scaled(self, tensor: str, sites: list[Reader]) -> bool:
        """Whether something between the stored tensor and a reader does more than move axes."""
        constants, shapes = self._analysis.constants, self._analysis.shapes
        names = [site.node.inputs[site.weight] for site in sites if site.tensor == tensor]
        sizes = sorted(size for size in shapes.dims[tensor] if size != 1)
        return any(
            constants.scalings(name) or sorted(size for size in shapes.dims[name] if size != 1) != sizes
            for name in names
        )

    def _site(self, contraction: Contraction) -> Reader | None:
        axes = _weight_axes(contraction, self._analysis)
        if axes is None:
            return None
        weight, column, row = axes
        name = contraction.node.inputs[weight]
        if name not in self._analysis.shapes.constant:
            return None
        root = self._analysis.constants.trace(name)
        place = root.axes[column]
        labels = contraction.labels
        return Reader(
            contraction.node, contraction.slot, contraction.axis, weight, column, row, root.tensor, place, labels
        )


def goes_by_groups(analysis: Analysis, node: Node) -> bool:
    """Whether a grouped convolution loses whole groups, with all that they read and make."""
    groups = node.attribute("group", 1)
    if groups == 1:
        return False
    read = analysis.scope.values.get(node.inputs[0], ())
    if len(read) < 2 or not read[1].live:
        return False
    rows = analysis.grouping.atom_of[read[1].expand()].reshape(groups, -1)
    return bool((rows == rows[:, :1]).all())


def _weight_axes(contraction: Contraction, analysis: Analysis) -> tuple[int, int, int | None] | None:
    """Return the input with the weight, and its contracted and its made axis; None for other operators."""
    node, slot = contraction.node, contraction.slot
    if contraction.mean or node.domain:
        return None
    attribute = node.attribute
    if node.op_type in ("Conv", "ConvTranspose") and slot == 0 and attribute("group", 1) == 1:
        return (1, 1, 0) if node.op_type == "Conv" else (1, 0, 1)
    if node.op_type == "QLinearConv" and slot == 0 and attribute("group", 1) == 1:
        return 3, 1, 0
    if node.op_type == "Gemm" and slot == 0:
        return (1, 1, 0) if attribute("transB", 0) else (1, 0, 1)
    if node.op_type == "MatMul":
        return _matmul_axes(node, slot, analysis)
    return None


def _matmul_axes(node: Node, slot: int, analysis: Analysis) -> tuple[int, int, int | None] | None:
    rank = len(analysis.shapes.dims[node.inputs[1 - slot]])
    if slot == 0:
        return (1, rank - 2, rank - 1) if rank > 1 else (1, 0, None)
    return (0, rank - 1, rank - 2) if rank > 1 else (0, 0, None)
