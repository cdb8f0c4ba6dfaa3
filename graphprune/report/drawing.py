# SPDX-License-Identifier: Apache-2.0
"""The drawing of a model: coupled groups and what is frozen as boxes, the layers between them as arrows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from graphprune.analysis.network import savings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphprune.analysis.accounting import Layer
    from graphprune.analysis.analysis import Analysis
    from graphprune.labels.space import Reason
    from graphprune.labels.vector import Ints, Labels
    from graphprune.plan.schema import Plan

__all__ = ["Arrow", "Box", "Drawing", "draw", "with_kept"]


@dataclass(frozen=True)
class Box:
    """A coupled group, or slices that one reason keeps.

    Attributes
    ----------
    id : str
        "g000" of a group, "f17" of what is frozen: safe in every format.
    kind : {"group", "frozen"}
    title, detail : str
        Name of a group; of what is frozen the kind of reason, and the reason. Untrusted text.
    width : int
        Atoms of a group; the most slices on one axis that the reason keeps.
    flops : float
        Share of the FLOPs that go if the group alone shrinks to one atom, or that the frozen slices take part in.
    exact : bool
    members : tuple of str
        Axes that belong to a group, or layers that what is frozen takes part in. Untrusted text.
    kept : int, optional
        Atoms of a group that stay, where a plan says so.
    """

    id: str
    kind: Literal["group", "frozen"]
    title: str
    detail: str
    width: int
    flops: float
    exact: bool
    members: tuple[str, ...]
    kept: int | None = None


@dataclass(frozen=True)
class Arrow:
    """Layers that read one box and make another.

    Attributes
    ----------
    tail, head : str
        Ids of the boxes.
    flops : float
        Share of the model's FLOPs in these layers, in proportion to the slices that each box has in them.
    layers : tuple of str
        Names of the layers. Untrusted text.
    """

    tail: str
    head: str
    flops: float
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """Boxes in the order in which the network makes them, and arrows between them."""

    name: str
    flops: int
    prunable: float
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def draw(analysis: Analysis) -> Drawing:
    """Return the drawing of a model.

    Complexity: O(layers x boxes on an axis).
    """
    artist = _Artist(analysis)
    for cost, layer in zip(analysis.scope.space.costs, analysis.layers, strict=True):
        artist.add(layer, cost.inner, cost.outer)
    return artist.finish()


def with_kept(drawing: Drawing, plan: Plan) -> Drawing:
    """Return the drawing of a model with the widths that a plan of it leaves."""
    kept = {group.id: len(group.kept) for group in plan.groups}
    return replace(drawing, boxes=tuple(replace(box, kept=kept.get(box.id)) for box in drawing.boxes))


@dataclass
class _Block:
    """Slices that one freeze keeps, while they are being collected."""

    width: int = 0
    flops: int = 0
    layers: dict[str, None] = field(default_factory=dict)


class _Artist:
    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.total = analysis.cost.flops(analysis.cost.sizes) or 1
        self.numbers = {id(reason): number for number, (_, reason) in enumerate(analysis.resolution.freezes)}
        self.same: dict[int, int] = {}
        self.order: dict[tuple[str, int], None] = {}
        self.blocks: dict[int, _Block] = {}
        self.arrows: dict[tuple[tuple[str, int], tuple[str, int]], tuple[float, dict[str, None]]] = {}

    def add(self, layer: Layer, inner: Labels, outer: Labels) -> None:
        """Take up one layer with the axis that it sums over and the axis that it makes."""
        flops = layer.flops(self.analysis.cost.sizes)
        sources, targets = self._owners(inner), self._owners(outer)
        for key, count in (*sources.items(), *targets.items()):
            self.order.setdefault(key)
            if key[0] == "frozen":
                block = self.blocks.setdefault(key[1], _Block())
                block.width = max(block.width, count)
                if layer.node not in block.layers:
                    block.layers[layer.node] = None
                    block.flops += flops
        for tail, read in sources.items():
            for head, made in targets.items():
                if tail != head:
                    part = flops * (read / len(inner)) * (made / len(outer)) / self.total
                    known, names = self.arrows.get((tail, head), (0.0, {}))
                    self.arrows[tail, head] = known + part, {**names, layer.node: None}

    def _owners(self, labels: Labels) -> dict[tuple[str, int], int]:
        """Return groups and reasons along an axis, with their slices; those that never had a label belong to none."""
        grouping, times = self.analysis.grouping, labels.repeat * labels.tile
        atoms = grouping.atom_of[labels.base]
        stays: Ints = labels.base[(atoms < 0) & (labels.base != 0)]
        numbers = self.analysis.first_freezes[self.analysis.resolution.component[stays]]
        counts: dict[tuple[str, int], int] = {}
        for owner, count in _counts(grouping.group_of[atoms[atoms >= 0]]):
            counts["group", owner] = count * times
        for number, count in _counts(numbers[numbers >= 0]):
            key = "frozen", self._behind(number)
            counts[key] = counts.get(key, 0) + count * times
        return counts

    def _behind(self, number: int) -> int:
        """Return one number for freezes of the same slices: weights behind a frozen axis are part of it."""
        if number not in self.same:
            origin = self.numbers.get(id(self._reason(number)), number)
            label = self.analysis.resolution.freezes[origin][0][0]
            self.same[number] = int(self.analysis.first_freezes[self.analysis.resolution.component[label]])
        return self.same[number]

    def finish(self) -> Drawing:
        """Return everything that was taken up, boxes in the order in which they were met."""
        for number in range(len(self.analysis.groups)):  # groups that no layer reads or makes
            self.order.setdefault(("group", number))
        joined = {key for pair in self.arrows for key in pair}
        alone = [key for key in self.order if key[0] == "frozen" and key not in joined]
        shares = savings(self.analysis)
        boxes: dict[tuple[str, int], Box] = {}
        for key in self.order:
            if key not in alone:
                boxes[key] = self._group(key[1], shares[key[1]]) if key[0] == "group" else self._frozen(key[1])
        arrows = [
            Arrow(boxes[tail].id, boxes[head].id, flops, tuple(layers))
            for (tail, head), (flops, layers) in self.arrows.items()
        ]
        drawn = (*boxes.values(), *self._together([number for _, number in alone]))
        return Drawing(self.analysis.model.name, self.total, self.analysis.prunable, drawn, tuple(arrows))

    def _together(self, numbers: list[int]) -> Iterator[Box]:
        """One box per kind for what stands between no two others: a reshape per attention layer would be noise."""
        kinds: dict[str, list[int]] = {}
        for number in numbers:
            kinds.setdefault(self._reason(number).kind, []).append(number)
        for numbers in kinds.values():
            boxes = [self._frozen(number) for number in numbers]
            layers = tuple(dict.fromkeys(layer for box in boxes for layer in box.members))
            detail = boxes[0].detail if len(boxes) == 1 else f"{boxes[0].detail} ({len(boxes)} places)"
            flops = min(1.0, sum(box.flops for box in boxes))
            yield replace(boxes[0], detail=detail, flops=flops, members=layers)

    def _group(self, number: int, share: float) -> Box:
        group = self.analysis.groups[number]
        members = tuple(
            f"{member.initializer} axis {member.axis} ({member.role.replace('_', ' ')}, {member.op})"
            for member in group.members
        )
        return Box(group.id, "group", group.name, "", group.size, share, group.exact, members)

    def _reason(self, number: int) -> Reason:
        labels, reason = self.analysis.resolution.freezes[number]
        return self.analysis.origins.behind(reason, len(labels)).reason

    def _frozen(self, number: int) -> Box:
        reason, block = self._reason(number), self.blocks[number]
        share = block.flops / self.total
        node = f" at {reason.node.label}" if reason.node else ""
        detail = reason.text + node
        return Box(f"f{number}", "frozen", reason.kind, detail, block.width, share, True, tuple(block.layers))


def _counts(owners: Ints) -> Iterator[tuple[int, int]]:
    """Yield each number that occurs, and how often."""
    present, counts = np.unique(owners, return_counts=True)
    yield from zip(present.tolist(), counts.tolist(), strict=True)
