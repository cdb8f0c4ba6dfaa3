# SPDX-License-Identifier: Apache-2.0
"""Smaller sizes: how large inputs are in a comparison of models that are made for very many samples or very large ones.

A file may fix a batch of 65,536, or an image with a million columns: a comparison holds all tensors of two models, and
takes memory for them of which the file says nothing. What pruning does to channels is the same for two samples, and
for a shorter image. So both models are compared with fewer of them, in copies whose inputs are open along these axes;
the file itself is run as it is, once, where memory holds that.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from onnx import ModelProto

from graphprune.model.files.messages import copy_but
from graphprune.model.sizes.batch_axes import Declared, sample_axes
from graphprune.model.values.shapes import infer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.graph import Graph

__all__ = ["Sizes", "count_elements", "loosened", "smaller_sizes"]

Sizes = dict[str, tuple[int, ...]]

_MOST_ELEMENTS = 1 << 24
"""Elements of all values of a run up to which nothing is made smaller."""
_SAMPLES = 2
_LONG = 1024
"""Sizes of images and lines of which less will do; several times a half of them stays above a quarter of this."""


def smaller_sizes(analysis: Analysis) -> tuple[Sizes, Mapping[str, tuple[int, ...]]] | None:
    """Return smaller input shapes and the shapes of all values with them; None if there is no need, or no such shapes.

    First samples become two, then long axes behind that of the channels become shorter by halves.

    Complexity: O(nodes), a few times where values are large.
    """
    graph, sizes = analysis.graph, dict(analysis.input_shapes)
    if count_elements(graph, analysis.shapes.dims) <= _MOST_ELEMENTS:
        return None
    best = None
    for fewer in _ever_smaller(graph, sizes):
        shapes = infer(graph, analysis.model.tensors.array, fewer)
        if shapes.refusal or shapes.dims.keys() < analysis.shapes.dims.keys():
            break
        best = fewer, shapes.dims
        if count_elements(graph, shapes.dims) <= _MOST_ELEMENTS:
            break
    return best


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


def loosened(model: ModelProto, before: Sizes, now: Sizes) -> ModelProto:
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
