# SPDX-License-Identifier: Apache-2.0
"""Constant values: small ones known from shape inference, large ones computed when asked for.

Exporters hide weights behind `Constant`, `Identity`, `Transpose` or `Cast` nodes. `trace`
follows such layout-only chains back to the tensor that is stored in the file, so that the
stored tensor is what gets sliced; anything else that is computed is *folded* when it changes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Final

import numpy as np
from onnx import TensorProto

from graphprune.array_types import Array
from graphprune.errors import UnsafeModelError
from graphprune.model.evaluation.arithmetic import MOST_WORK, NotComputedError, evaluate, work
from graphprune.model.evaluation.constant_evaluation import Outside
from graphprune.model.graph import Graph, Node
from graphprune.model.values.scaling import Quantised, is_scaling, real_values, spans
from graphprune.model.values.shapes import Read, Shapes

__all__ = ["Constants", "Root"]


@dataclass(frozen=True)
class Root:
    """Where a constant is stored.

    Attributes
    ----------
    tensor : str
        The stored tensor (initializer or output of a `Constant` node), or the computed value itself.
    axes : tuple of (int or None)
        For each axis of the value, the axis of the stored tensor; None where it has none and is whole.
    """

    tensor: str
    axes: tuple[int | None, ...]


_TIMES_STORED: Final = 64
"""Elements that one expression may read and make for each element that is stored in the file."""
_MOST_WORK_EVER: Final = 1 << 30
_TIMES_STORED_EVER: Final = 1 << 9
"""Elements that all expressions may read and make, each as often as it is asked for: at least, and for each stored."""
_MOST_KEPT: Final = 1 << 23
"""Elements of computed values that are kept, since they are likely to be asked for again."""


class Constants:
    """Access to every value that depends on initializers and shapes only.

    Parameters
    ----------
    outside : Outside, optional
        Computes, and counts the time of, what is not computed in this process; nothing else does without.
    """

    def __init__(self, graph: Graph, shapes: Shapes, read: Read, outside: Outside | None = None) -> None:
        self._graph = graph
        self._shapes = shapes
        self._read = read
        self._outside = outside
        self._from_outside: dict[str, Array | None] = {}
        self._kept: dict[str, Array] = {}
        self._room = _MOST_KEPT
        self._worked = 0.0

    def __contains__(self, name: str) -> bool:
        return name in self._shapes.constant

    def stored(self, name: str) -> TensorProto | None:
        """Return the tensor message behind an initializer or a `Constant` node, else None."""
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        node = self._graph.producer.get(name)
        if node is not None and node.op_type == "Constant" and not node.domain:
            value = node.attribute("value")
            return value if isinstance(value, TensorProto) else None
        return None

    def array(self, name: str) -> Array:
        """Return the value of a constant; large computed ones are evaluated anew at each call.

        Raises
        ------
        KeyError
            If the value is not constant, or the reference implementation cannot compute it.
        UnsafeModelError
            If constants have taken too long together.
        """
        if name in self._shapes.values:
            return self._shapes.values[name]
        if name in self._kept:
            return self._kept[name]
        if name in self._from_outside:
            return _computed(name, self._from_outside[name])
        nodes = self._needed(name)
        local: dict[str, Array] = {}
        try:
            self._compute(nodes, local)
        except NotComputedError:
            self._from_outside[name] = self._compute_outside(nodes, name)
            return _computed(name, self._from_outside[name])
        return self._leaf(name, local)

    def _compute(self, nodes: Sequence[Node], local: dict[str, Array]) -> None:
        """Compute nodes one after the other, each value as long as it is needed."""
        last = {item: node.index for node in nodes for item in node.inputs}
        left: float = max(MOST_WORK, _TIMES_STORED * self._stored_elements)
        for node in nodes:
            inputs = [self._leaf(item, local) if item else None for item in node.inputs]
            try:
                outputs = evaluate(node, inputs, self._graph.opsets, most=left)
            except Exception as error:  # the reference implementation raises whatever it likes
                real = self._real(node, inputs)
                if real is None and isinstance(error, NotComputedError):
                    raise
                if real is None:
                    raise KeyError(node.outputs[0]) from error
                outputs = [real]
            else:
                left -= work(node, inputs)
                self._account(work(node, inputs))
            local.update(zip(node.outputs, outputs, strict=True))
            self._keep(node, outputs)
            for item in node.inputs:
                if last[item] == node.index:
                    local.pop(item, None)

    def _account(self, steps: float) -> None:
        self._worked += steps
        if self._worked > max(_MOST_WORK_EVER, _TIMES_STORED_EVER * self._stored_elements):
            raise UnsafeModelError(
                "the constants of the model take far longer to compute than its size lets expect",
                hint="store what is computed of constants: "
                "onnxruntime does so with SessionOptions.optimized_model_filepath",
            )

    def _keep(self, node: Node, outputs: Sequence[Array]) -> None:
        """Keep what several nodes read, or nobody but who asks for it now, as long as there is room."""
        for name, value in zip(node.outputs, outputs, strict=True):
            if len(self._graph.consumers.get(name, ())) != 1 and value.size <= self._room and name:
                self._room -= value.size
                self._kept[name] = value if value.base is None else np.array(value)

    def _compute_outside(self, nodes: Sequence[Node], name: str) -> Array | None:
        made = {item for node in nodes for item in node.outputs}
        read = {item for node in nodes for item in node.inputs if item and item not in made}
        if self._outside is None:
            return None
        return self._outside.compute(self._graph, nodes, {item: self._leaf(item, {}) for item in sorted(read)}, name)

    @cached_property
    def _stored_elements(self) -> int:
        """Elements of all stored tensors together: what is made of them may take time in proportion."""
        return sum(prod(tensor.dims) for tensor in self._graph.initializers.values())

    def computable(self, name: str) -> bool:
        """Whether the value of a constant can be had; found out by computing what is not stored."""
        if self.stored(name) is not None and name in self._shapes.constant:
            return True
        try:
            self.array(name)
        except KeyError:
            return False
        return True

    def _real(self, node: Node, inputs: Sequence[Array | None]) -> Array | None:
        """Value of a `DequantizeLinear` of a type that the reference implementation does not know."""
        if node.op_type != "DequantizeLinear" or not is_scaling(node):
            return None
        data, scale, zero_point = (*inputs, None)[:3]
        if data is None or scale is None:
            return None
        over = spans(node, data.shape, scale.shape)
        zeros = () if zero_point is None else spans(node, data.shape, zero_point.shape)
        if over is None or zeros is None:
            return None
        return real_values(data, scale, zero_point, Quantised("", "", over, zeros)).astype(scale.dtype)

    def _leaf(self, name: str, local: dict[str, Array]) -> Array:
        if name in local:
            return local[name]
        if name in self._shapes.values:
            return self._shapes.values[name]
        if name in self._kept:
            return self._kept[name]
        tensor = self.stored(name)
        if tensor is None or name not in self._shapes.constant:
            raise KeyError(name)
        return self._read(tensor)

    def _needed(self, name: str, *, known: bool = True) -> list[Node]:
        """Nodes that compute a value, in graph order; `known` values count as given."""
        needed: dict[int, Node] = {}
        pending = [name]
        while pending:
            current = pending.pop()
            node = self._graph.producer.get(current)
            if (
                node is None
                or (known and (current in self._shapes.values or current in self._kept))
                or self.stored(current) is not None
                or node.index in needed
                or (not known and node.op_type in ("Shape", "Size"))
            ):
                continue
            if current not in self._shapes.constant:
                raise KeyError(name)
            needed[node.index] = node
            # What gives nothing but its shape or its type need not be constant.
            pending.extend(item for item in node.inputs if item in self._shapes.constant)
        return [needed[index] for index in sorted(needed)]

    def absorbed(self, names: Iterable[str]) -> list[str]:
        """Return the stored tensors that nobody needs once these computed constants are stored themselves."""
        needed = {node.index: node for name in names for node in self._needed(name, known=False)}
        made = {output for node in needed.values() for output in node.outputs}
        read = {item for node in needed.values() for item in node.inputs if node.op_type not in ("Shape", "Size")}
        used = {item for item in read if item in self._shapes.constant and item not in made}
        return [item for item in sorted(used) if all(node.index in needed for node, _ in self.readers(item))]

    def superseded(self, names: Iterable[str], replaced: Container[tuple[int, int]]) -> frozenset[int]:
        """Return the nodes that nobody needs once these computed constants are stored themselves.

        Parameters
        ----------
        replaced : container of (node index, slot)
            Readers of the constants that will read what is stored instead.
        """
        needed = {node.index: node for name in names for node in self._needed(name, known=False)}
        gone: set[int] = set()
        for index in sorted(needed, reverse=True):
            outputs = needed[index].outputs
            readers = [(node.index, slot) for name in outputs for node, slot in self._graph.consumers.get(name, ())]
            stays = any(name in self._graph.captured or name in self._graph.outputs for name in outputs)
            if not stays and all(reader in replaced or reader[0] in gone for reader in readers):
                gone.add(index)
        return frozenset(gone)

    def readers(self, name: str) -> list[tuple[Node, int]]:
        """Return who reads a stored tensor, seen through layout-only nodes; asking for its shape is not reading.

        A body that captures the tensor, or the graph output that it is, counts as slot -1 of a node.
        """
        readers: list[tuple[Node, int]] = []
        pending = [name]
        while pending:
            current = pending.pop()
            for node, slot in self._graph.consumers.get(current, ()):
                if slot == 0 and self.layout(node) is not None and node.outputs[0] in self._shapes.constant:
                    pending.append(node.outputs[0])
                elif node.op_type not in ("Shape", "Size") or node.domain:
                    readers.append((node, slot))
            if current in self._graph.captured or current in self._graph.outputs:
                readers.extend((node, -1) for node in self._graph.nodes[-1:])
        return readers

    def trace(self, name: str) -> Root:
        """Follow layout-only nodes back to the stored tensor.

        A chain of anything but layout-only nodes (see `layout`) ends the walk at the computed value.
        """
        rank = len(self._shapes.dims.get(name, ()))
        axes: tuple[int | None, ...] = tuple(range(rank))
        while self.stored(name) is None:
            node = self._graph.producer.get(name)
            back = None if node is None else self.layout(node)
            if node is None or back is None:
                break
            axes = tuple(None if axis is None else back[axis] for axis in axes)
            name = node.inputs[0]
        return Root(name, axes)

    def scalings(self, name: str) -> list[tuple[Node, tuple[int | None, ...]]]:
        """Return the nodes that quantise or dequantise between a constant and where it is stored.

        With each comes, for every axis of its data, the axis of `name`; None where that has none.
        """
        scalings: list[tuple[Node, tuple[int | None, ...]]] = []
        axes: tuple[int | None, ...] = tuple(range(len(self._shapes.dims.get(name, ()))))
        while self.stored(name) is None:
            node = self._graph.producer.get(name)
            back = None if node is None else self.layout(node)
            if node is None or back is None:
                break
            axes = tuple(None if axis is None else back[axis] for axis in axes)
            name = node.inputs[0]
            if is_scaling(node):
                places: list[int | None] = [None] * len(back)
                for at, axis in enumerate(axes):
                    if axis is not None:
                        places[axis] = at
                scalings.append((node, tuple(places)))
        return scalings

    def layout(self, node: Node) -> tuple[int | None, ...] | None:
        """Map each output axis of a layout-only node to its input axis; None for other nodes.

        `Identity`, `Cast`, `QuantizeLinear`, `DequantizeLinear`, `Transpose`, `Squeeze`, `Unsqueeze` and
        a `Reshape` that only moves axes of length 1 keep every slice a slice. `Gather` does along all
        axes but its own, whose places in the map are None: along these the value is whole.
        """
        if not node.inputs or node.inputs[0] not in self._shapes.dims:
            return None
        rank = len(self._shapes.dims[node.inputs[0]])
        if is_scaling(node):
            return tuple(range(rank))
        if node.domain:
            return None
        if node.op_type in ("Identity", "Cast"):
            return tuple(range(rank))
        if node.op_type == "Transpose":
            return tuple(node.attribute("perm", list(range(rank))[::-1]))
        if node.op_type == "Reshape":
            return self._reshaped(node)
        if node.op_type == "Gather" and node.inputs[1] in self._shapes.values:
            axis = node.attribute("axis", 0) % rank
            places = [None] * self._shapes.values[node.inputs[1]].ndim
            return (*range(axis), *places, *range(axis + 1, rank))
        if node.op_type in ("Squeeze", "Unsqueeze"):
            axes = self._axes(node)
            return None if axes is None else _moved(node.op_type, rank, axes)
        return None

    def _reshaped(self, node: Node) -> tuple[int | None, ...] | None:
        """Axis map of a `Reshape` whose longer axes keep their order and length."""
        before, after = self._shapes.dims[node.inputs[0]], self._shapes.dims.get(node.outputs[0])
        longer = [axis for axis, size in enumerate(before) if size != 1]
        if after is None or [before[axis] for axis in longer] != [size for size in after if size != 1]:
            return None
        source = iter(longer)
        return tuple(None if size == 1 else next(source) for size in after)

    def _axes(self, node: Node) -> Sequence[int] | None:
        if len(node.inputs) > 1 and node.inputs[1]:
            value = self._shapes.values.get(node.inputs[1])
            return None if value is None else [int(axis) for axis in value.ravel()]
        axes = node.attribute("axes")
        return None if axes is None else list(axes)


def _computed(name: str, value: Array | None) -> Array:
    """Return a value that was tried to compute."""
    if value is None:
        raise KeyError(name)
    return value


def _moved(op_type: str, rank: int, axes: Sequence[int]) -> tuple[int | None, ...]:
    """Axis map of `Squeeze` and `Unsqueeze`."""
    if op_type == "Squeeze":
        gone = {axis % rank for axis in axes}
        return tuple(axis for axis in range(rank) if axis not in gone)
    total = rank + len(axes)
    new = {axis % total for axis in axes}
    source = iter(range(rank))
    return tuple(None if axis in new else next(source) for axis in range(total))
