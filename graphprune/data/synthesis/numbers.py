# SPDX-License-Identifier: Apache-2.0
"""Numbers for inputs that are no images, as far as the file tells which ones they may be.

==========================================  ===================================================================
the input                                   what is made
==========================================  ===================================================================
picks rows of a stored table (`Gather`)     whole numbers below the table's length, all alike: token numbers
is whole numbers called a mask              ones: nothing is masked
is quantised at once                        Gaussian numbers over the range that the quantisation covers
is normalised at once                       Gaussian numbers of the mean and variance that are remembered, else
                                            of 0 and 1
==========================================  ===================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array, Floats
from graphprune.data.statistics import stored_tensor
from graphprune.data.synthesis.exposure import affine_values

if TYPE_CHECKING:
    from graphprune.data.signature import InputSpec
    from graphprune.data.statistics import RememberedNorm
    from graphprune.model.graph import Graph, Node
    from graphprune.model.load import Model

__all__ = ["Draw", "number_maker", "quantised_range"]

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

_PASSING = frozenset(("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten"))
_NORMALISING = frozenset(("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization"))
_SPAN = 6.0
"""A range that a calibration found holds about so many deviations."""


def number_maker(model: Model, graph: Graph, spec: InputSpec, norms: list[RememberedNorm]) -> tuple[Draw, str] | None:
    """Return what draws numbers of a shape for an input, and what it goes by; None where the file tells nothing.

    Parameters
    ----------
    model : Model
    graph : Graph
    spec : InputSpec
    norms : list of RememberedNorm
        Of the graph.
    """
    readers = _readers(graph, spec.name)
    if spec.dtype.kind in "iub":
        return _whole_numbers(graph, spec, readers)
    span = quantised_range(model, graph, spec.name)
    if span is not None:
        middle, deviation = np.array(sum(span) / 2), np.array((span[1] - span[0]) / _SPAN)
        return _gaussian(spec, middle, deviation), "the range of a quantisation"
    for norm in norms:
        if norm.x == spec.name and len(spec.dims or ()) > 1:
            shape = (1, -1, *[1] * (len(spec.dims or ()) - 2))
            mean, deviation = norm.kept.mean.reshape(shape), np.sqrt(norm.kept.variance).reshape(shape)
            return _gaussian(spec, mean, deviation), f"the statistics of {norm.node.label}"
    affine = affine_values(graph, spec.name)
    if any(norm.x in affine for norm in norms) or any(node.op_type in _NORMALISING for node, _ in readers):
        return _gaussian(spec, np.zeros(1), np.ones(1)), "a normalisation behind it"
    return None


def quantised_range(model: Model, graph: Graph, name: str) -> tuple[float, float] | None:
    """Return the range that a `QuantizeLinear` which reads an input covers; None where there is none."""
    for node, slot in _readers(graph, name):
        if node.op_type != "QuantizeLinear" or slot or len(node.inputs) < 3:
            continue
        tensors = [stored_tensor(graph, name) for name in node.inputs[1:3]]
        scale, zero = (None if tensor is None else model.tensors.array(tensor) for tensor in tensors)
        if scale is None or zero is None or scale.size != 1 or zero.dtype.kind not in "iu":
            continue
        limits, step, origin = np.iinfo(zero.dtype), float(scale.ravel()[0]), int(zero.ravel()[0])
        return (limits.min - origin) * step, (limits.max - origin) * step
    return None


def _readers(graph: Graph, name: str) -> list[tuple[Node, int]]:
    """Return who reads a value, through what only reshapes it."""
    readers, pending = [], [name]
    while pending:
        for node, slot in graph.consumers.get(pending.pop(), []):
            if node.op_type in _PASSING and not slot and not node.domain:
                pending.extend(node.outputs)
            else:
                readers.append((node, slot))
    return readers


def _whole_numbers(graph: Graph, spec: InputSpec, readers: list[tuple[Node, int]]) -> tuple[Draw, str] | None:
    lengths = []
    for node, slot in readers:
        table = stored_tensor(graph, node.inputs[0]) if node.op_type == "Gather" and slot == 1 else None
        if table is not None and table.dims:
            lengths.append(int(table.dims[node.attribute("axis", 0)]))
    if lengths:
        rows = min(lengths)
        return (lambda random, shape: random.integers(0, rows, shape).astype(spec.dtype)), f"a table of {rows} rows"
    if "mask" in spec.name.lower():
        return (lambda _, shape: np.ones(shape, dtype=spec.dtype)), "a mask of ones"
    return None


def _gaussian(spec: InputSpec, mean: Floats, deviation: Floats) -> Draw:
    def draw(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return (mean + deviation * random.standard_normal(shape)).astype(spec.dtype)

    return draw
