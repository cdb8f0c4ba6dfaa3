# SPDX-License-Identifier: Apache-2.0
"""Smaller sizes: how large inputs are in a comparison of models that are made for very many samples or very large ones.

A file may fix a batch of 65,536, or an image with a million columns: a comparison holds all tensors of two models, and
takes memory for them of which the file says nothing. What pruning does to channels is the same for two samples, and
for a shorter image. So both models are compared with fewer of them, in copies whose inputs are open along these axes,
and in which constants that name sizes follow (:mod:`graphprune.model.sizes.named_sizes`); the file itself is run as it
is, once, where memory holds that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from graphprune.labels.vector import Labels
from graphprune.model.files.messages import copy_but
from graphprune.model.graph import Graph, subgraphs
from graphprune.model.sizes.batch_axes import Declared, sample_axes
from graphprune.model.sizes.named_sizes import CutOperand, NamedSizes, SizeList
from graphprune.model.sizes.size_memory import UnfitError
from graphprune.model.values.shapes import infer, infer_given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from onnx import NodeProto

    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Array
    from graphprune.model.graph import Node
    from graphprune.model.inference.known import Shapes
    from graphprune.model.load import Model

__all__ = ["Sizes", "Smaller", "count_elements", "resized", "smaller_sizes"]

Sizes = dict[str, tuple[int, ...]]

_MOST_ELEMENTS = 1 << 24
"""Elements of all values of a run up to which nothing is made smaller."""
_SAMPLES = 2
_LONG = 1024
"""Sizes of images and lines of which less will do; several times a half of them stays above a quarter of this."""
_OPEN_SLICE = 10
"""First operator set in which the bounds of a `Slice` are inputs."""


@dataclass(frozen=True)
class _Bounds:
    """Where a `Slice` cuts axes that became smaller.

    Attributes
    ----------
    output : str
        First output of the node.
    name : str
        Of the operand or the attribute that says it.
    places : dict of int to int
        What stands at some places of the list.
    count : int
        How long it is.
    """

    output: str
    name: str
    places: Mapping[int, int]
    count: int


_BOUNDS = ("starts", "ends", "axes", "steps")
"""What a `Slice` reads behind its data, or before operator set 10 has as attributes."""


@dataclass(frozen=True, eq=False)
class Smaller:
    """Inputs that are smaller than those of a file, and what follows from that.

    Attributes
    ----------
    before, sizes : dict of str to tuple of int
        Shapes of the inputs as the file has them, and as they are in a comparison.
    dims : mapping of str to tuple of int
        Shapes of all values with these.
    edits : sequence of SizeList or CutOperand
        What constants have to say then.
    """

    before: Sizes
    sizes: Sizes
    dims: Mapping[str, tuple[int, ...]]
    edits: Sequence[SizeList | CutOperand] = ()
    bounds: Sequence[_Bounds] = ()

    def fitted(self, light: ModelProto, model: Model) -> ModelProto:
        """Return a copy of a model that takes the smaller inputs.

        Parameters
        ----------
        light : ModelProto
            The model, or a form of it without weights.
        model : Model
            With the values of the constants that it reads.

        Raises
        ------
        UnfitError
            If a list of sizes in it is not what the smaller ones follow from, or it cuts an axis that became smaller
            elsewhere than the original does: behind its end, nothing would show that.
        """
        copy = _loosened(light, self.before, self.sizes)
        edited = _Edited(copy, model, self.before)
        for bounds in self.bounds:
            edited.check(bounds)
        for edit in self.edits:
            edited.make(edit)
        edited.finish()
        return copy


def smaller_sizes(analysis: Analysis) -> Smaller | None:
    """Return smaller input shapes and the shapes of all values with them; None if there is no need, or no such shapes.

    First samples become two, then long axes behind that of the channels become shorter by halves.

    Complexity: O(nodes), a few times where values are large.
    """
    graph, sizes = analysis.graph, dict(analysis.input_shapes)
    if count_elements(graph, analysis.shapes.dims) <= _MOST_ELEMENTS:
        return None
    best = None
    for fewer in _ever_smaller(graph, sizes):
        smaller = _followed(analysis, fewer)
        if smaller is None:
            break
        best = smaller
        if count_elements(graph, smaller.dims) <= _MOST_ELEMENTS:
            break
    return best


def _followed(analysis: Analysis, sizes: Sizes) -> Smaller | None:
    """Return what follows from smaller inputs; None if the graph does not take them."""
    graph, before, read = analysis.graph, analysis.shapes, analysis.model.tensors.array
    named = NamedSizes(before)
    try:
        if any(node.captured or any(True for _ in subgraphs(node.proto)) for node in graph.nodes):
            shapes = infer(graph, read, sizes)
        else:
            shapes = infer_given(graph, read, sizes, named)
    except UnfitError:
        return None
    if shapes.refusal or not before.dims.keys() <= shapes.dims.keys():
        return None
    if any(prod(dims) and not prod(shapes.dims[name]) for name, dims in before.dims.items()):
        return None  # of nothing, everything can be said
    bounds = [found for node in graph.nodes for found in _bounds(node, before, shapes)]
    return Smaller(dict(analysis.input_shapes), sizes, shapes.dims, named.edits, bounds)


def _bounds(node: Node, before: Shapes, now: Shapes) -> Iterable[_Bounds]:
    """Yield what a `Slice` says of axes that became smaller."""
    if node.op_type != "Slice" or node.domain or node.inputs[0] not in before.dims:
        return
    old, new = before.dims[node.inputs[0]], now.dims[node.inputs[0]]
    lists: dict[str, tuple[int, ...]] = {}
    for slot, name in enumerate(_BOUNDS, start=1):
        operand = node.inputs[slot] if slot < len(node.inputs) else ""
        if operand in before.values:
            lists[name] = tuple(int(value) for value in before.values[operand].ravel())
        elif (given := node.attribute(name, None)) is not None:
            lists[name] = tuple(given)
    axes = [axis % len(old) for axis in lists.get("axes", range(len(old)))]
    for name in ("starts", "ends", "steps"):
        values = lists.get(name, ())
        places = {
            at: value for at, (value, axis) in enumerate(zip(values, axes, strict=False)) if old[axis] != new[axis]
        }
        if places:
            yield _Bounds(node.outputs[0], name, places, len(values))


def _ever_smaller(graph: Graph, sizes: Sizes) -> Iterable[Sizes]:
    """Yield shapes that are smaller and smaller."""
    declared = [Declared.of(graph.inputs[name]) for name in sizes]
    samples = dict(zip(sizes, sample_axes(declared), strict=True))
    counts = {shape[axis] for name, shape in sizes.items() if (axis := samples[name]) is not None and axis >= 0}
    if len(counts) == 1 and counts.pop() > _SAMPLES:
        sizes = {name: _with(shape, samples[name], _SAMPLES) for name, shape in sizes.items()}
        yield sizes
    while any(size >= _LONG for shape in sizes.values() for size in shape[2:]):
        sizes = {
            name: (*shape[:2], *(size // 2 if size >= _LONG else size for size in shape[2:]))
            for name, shape in sizes.items()
        }
        yield sizes


def _with(shape: tuple[int, ...], axis: int | None, size: int) -> tuple[int, ...]:
    return shape if axis is None else (*shape[:axis], size, *shape[axis + 1 :])


def count_elements(graph: Graph, dims: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many elements all values have that depend on inputs."""
    made = (name for node in graph.nodes for name in node.outputs)
    return sum(prod(dims.get(name, ())) for name in (*graph.inputs, *made) if name)


def resized(labels: Labels, size: int) -> Labels:
    """Return the labels of an axis that has another size.

    Raises
    ------
    UnfitError
        If channels cannot lie along it as they did before.
    """
    if size == len(labels):
        return labels
    count = len(labels.base)
    for repeat, tile in ((labels.repeat, 0), (0, labels.tile)):
        step = count * (repeat or tile)
        if step and size % step == 0:
            return Labels(labels.base, repeat or size // step, tile or size // step)
    raise UnfitError


def _loosened(model: ModelProto, before: Sizes, now: Sizes) -> ModelProto:
    """Return a copy of a model that says nothing of sizes that are others now, nor of any that may follow from them."""
    copy = ModelProto()
    copy_but(model, copy, "graph")
    copy_but(model.graph, copy.graph, "value_info")
    for value in copy.graph.input:
        if value.name in now and value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            for dim, old, new in zip(dims, before[value.name], now[value.name], strict=True):
                if old != new:
                    dim.ClearField("value")
    for value in copy.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("value")
    return copy


class _Edited:
    """A copy of a model whose nodes read other sizes than it stores."""

    def __init__(self, copy: ModelProto, model: Model, sizes: Sizes) -> None:
        self._copy = copy
        self._sizes = sizes
        self._model = model
        self._by_output = {node.output[0]: node for node in copy.graph.node if node.output}
        self._before: dict[str, list[NodeProto]] = {}
        self._opset = next((entry.version for entry in copy.opset_import if entry.domain in ("", "ai.onnx")), 1)

    @cached_property
    def _stored(self) -> dict[str, Callable[[], Array]]:
        """What is stored in the model, by name."""
        graph, array = self._model.proto.graph, self._model.tensors.array
        stored = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            value = next((each.t for each in node.attribute if each.name == "value"), None)
            if node.op_type == "Constant" and value is not None:
                stored[node.output[0]] = value
        return {name: partial(array, tensor) for name, tensor in stored.items()}

    def make(self, edit: SizeList | CutOperand) -> None:
        """Let a node read something else, unless this version of the model does not have it."""
        node = self._by_output.get(edit.output)
        if node is None:
            return
        if edit.slot >= len(node.input):
            raise UnfitError
        source, name = node.input[edit.slot], f"graphprune.smaller.{edit.output}.{edit.slot}"
        if isinstance(edit, SizeList):
            self._store(edit.fitted(self._value(source)), name)
        else:
            self._before.setdefault(edit.output, []).extend(self._cut(source, name, edit.lengths))
        node.input[edit.slot] = name

    def check(self, bounds: _Bounds) -> None:
        """Raise unless a node cuts where it did, unless this version of the model does not have it."""
        node = self._by_output.get(bounds.output)
        if node is None:
            return
        slot = 1 + _BOUNDS.index(bounds.name)
        if slot < len(node.input) and node.input[slot]:
            values = self._value(node.input[slot]).ravel().tolist()
        else:
            values = [value for each in node.attribute if each.name == bounds.name for value in each.ints]
        if len(values) != bounds.count or any(values[at] != value for at, value in bounds.places.items()):
            raise UnfitError

    def _value(self, name: str) -> Array:
        """Return a list of sizes that the model stores or computes."""
        if name in self._stored:
            return self._stored[name]()
        if name not in self._computed:
            raise UnfitError
        return self._computed[name]

    @cached_property
    def _computed(self) -> dict[str, Array]:
        return infer(Graph(self._model.proto), self._model.tensors.array, self._sizes).values

    def _store(self, value: Array, name: str) -> str:
        self._copy.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _cut(self, source: str, name: str, lengths: Mapping[int, int]) -> list[NodeProto]:
        """Return the node that cuts a stored operand."""
        axes, ends = list(lengths), list(lengths.values())
        starts = [0] * len(axes)
        if self._opset < _OPEN_SLICE:
            return [helper.make_node("Slice", [source], [name], starts=starts, ends=ends, axes=axes)]
        lists = {"starts": starts, "ends": ends, "axes": axes}
        inputs = [self._store(np.asarray(sizes, np.int64), f"{name}.{each}") for each, sizes in lists.items()]
        return [helper.make_node("Slice", [source, *inputs], [name])]

    def finish(self) -> None:
        """Put new nodes in front of those that read them."""
        if not self._before:
            return
        nodes = [
            item
            for node in self._copy.graph.node
            for item in (*self._before.get(node.output[0] if node.output else "", ()), node)
        ]
        ordered = ModelProto()
        ordered.graph.node.extend(nodes)
        self._copy.graph.ClearField("node")
        self._copy.graph.node.extend(ordered.graph.node)
