# SPDX-License-Identifier: Apache-2.0
"""Origins: why an axis never carried channels that may go, traced back to where it became whole.

A rule that freezes an axis gives label 0 to what it makes, so that nothing behind it has to ask
again. For explanations this is walked backwards: through operators that pass the axis on, to the
node that froze it, to a graph input, or to the operator that made an axis of this length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from graphprune.labels.operator import Scope
from graphprune.labels.resolve import Resolution
from graphprune.labels.space import Reason
from graphprune.model.graph import Node
from graphprune.model.values.bodies import DOMAIN, ENTRIES

__all__ = ["Origin", "Origins"]

_FIXED = "fixed axis"
_STUCK = "reshape"


@dataclass(frozen=True)
class Origin:
    """The reason why an axis is whole, and the nodes from the asked one back to it."""

    reason: Reason
    way: tuple[Node, ...] = ()


class Origins:
    """Where whole axes come from.

    Parameters
    ----------
    scope : Scope
        After the label pass.
    resolution : Resolution
        Its outcome.
    """

    def __init__(self, scope: Scope, resolution: Resolution) -> None:
        self._scope = scope
        self._resolution = resolution
        self._freezes: dict[int, list[tuple[int, Reason]]] = {}
        for labels, reason in resolution.freezes:
            if reason.node is not None and reason.kind != _FIXED:
                self._freezes.setdefault(reason.node.index, []).append((len(labels), reason))
        self._known: dict[tuple[int, int], Origin | None] = {}

    def behind(self, reason: Reason, size: int) -> Origin:
        """Return what is behind a freeze: why the axis is whole that channels were tied to, or would have to pass."""
        if reason.kind == _STUCK and reason.node is not None:
            return self._stuck.get(reason.node.index) or Origin(reason)
        if reason.kind != _FIXED or reason.node is None:
            return Origin(reason)
        return self.of_node(reason.node, size) or Origin(reason)

    @cached_property
    def _stuck(self) -> dict[int, Origin]:
        """By node at which no alternative was left, why the first of its axes stays."""
        component, freezes = self._resolution.component, self._resolution.freezes
        first = np.full(int(component.max()) + 1, -1, dtype=np.int64)
        for number in range(len(freezes) - 1, -1, -1):
            if freezes[number][1].kind != _STUCK:
                first[component[freezes[number][0]]] = number
        found: dict[int, Origin] = {}
        for choice, taken in self._resolution.committed:
            if taken is None:
                named = np.concatenate([part for a in choice.alternatives for part in (a.left, a.right)])
                numbers = first[component[named[named != 0]]]
                if (numbers >= 0).any():
                    labels, reason = freezes[int(numbers[numbers >= 0].min())]
                    found.setdefault(choice.node.index, self.behind(reason, len(labels)))
        return found

    def of_node(self, node: Node, size: int) -> Origin | None:
        """Return why an axis of `size` slices that `node` reads is whole, or None where it reads no such axis."""
        if size == 1:
            return None
        key = node.index, size
        if key not in self._known:
            self._known[key] = self._walk(node, size)
        return self._known[key]

    def of_value(self, name: str, size: int) -> Origin:
        """Return why an axis of `size` slices of an activation is whole."""
        if name in self._scope.graph.inputs:
            return Origin(Reason("graph input", None, f"belongs to the graph input {name!r}"))
        node = self._scope.graph.producer.get(name)
        if node is None:
            return Origin(Reason("whole axis", None, _NONE))
        if size == 1:
            return Origin(_whole(node).reason)
        return self._made_whole(node, size) or self.of_node(node, size) or _whole(node)

    def _walk(self, node: Node, size: int) -> Origin | None:
        """Go back along whole axes of this length until something says why, or they end."""
        way: list[Node] = []
        seen: set[str] = set()
        name = self._next(node, size, seen)
        if name is None:
            return None
        while name is not None:
            seen.add(name)
            if name in self._scope.graph.inputs:
                return Origin(Reason("graph input", None, f"belongs to the graph input {name!r}"), tuple(way))
            maker = self._scope.graph.producer.get(name)
            if maker is None:
                break
            way.append(maker)
            made = self._made_whole(maker, size)
            if made is not None:
                return Origin(made.reason, tuple(way))
            name = self._next(maker, size, seen)
        return Origin(_whole(way[-1]).reason, tuple(way)) if way else None

    def _made_whole(self, node: Node, size: int) -> Origin | None:
        """Return the reason that a node itself gave for an axis of this length that it reads."""
        if _enters_loop(node) and self._next(node, size, set()) is None:
            return Origin(Reason("control flow", node, "is handed on from turn to turn"), (node,))
        freezes = self._freezes.get(node.index, ())
        barrier = self._scope.space.barriers.get(node.index)
        if not freezes:
            return None if barrier is None else Origin(barrier, (node,))
        axes = [axis for name in node.inputs for axis in self._scope.values.get(name, ()) if len(axis) == size]
        bases = {int((axis.base != 0).sum()) for axis in axes if axis.live}
        return next((Origin(reason, (node,)) for length, reason in freezes if length in bases), None)

    def _next(self, node: Node, size: int, seen: set[str]) -> str | None:
        """Return an input with a whole axis of this length."""
        for name in self._reads(node):
            axes = self._scope.values.get(name, ())
            if name not in seen and any(len(axis) == size and not axis.live for axis in axes):
                return name
        return None

    def _reads(self, node: Node) -> Sequence[str]:
        """Return what a node reads; what a loop hands to its body it reads behind the body."""
        if not _enters_loop(node):
            return node.inputs
        loop = self._scope.loops[node.index]
        return [*(state.begin for state in loop.states), *(scanned.tensor for scanned in loop.scanned)]


def _enters_loop(node: Node) -> bool:
    return node.domain == DOMAIN and node.op_type in ENTRIES


_NONE = "is no channel axis: space, batch or tokens"


def _whole(node: Node) -> Origin:
    return Origin(Reason("whole axis", node, _NONE), (node,))
