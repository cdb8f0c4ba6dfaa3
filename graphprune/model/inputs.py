# SPDX-License-Identifier: Apache-2.0
"""Concrete shapes for the inputs of a graph, for which everything is analysed and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import TypeProto

from graphprune.errors import UsageError, quote
from graphprune.model.batch_axes import Declared, is_name, sample_axes
from graphprune.model.graph import Graph

__all__ = ["assumed", "input_shapes"]

_FREE = {3: 16, 4: 224, 5: 112}
"""Size of an open dimension other than the first, by rank; 16 for all other ranks."""


def input_shapes(
    graph: Graph, given: Mapping[str, Sequence[int]] | None = None, *, other: bool = False
) -> dict[str, tuple[int, ...]]:
    """Choose a concrete shape for every graph input.

    Parameters
    ----------
    given : mapping of str to sequence of int, optional
        Shapes from the user; they win over what the file says.
    other : bool
        Use a second size for every open dimension, to find out what depends on it.

    Returns
    -------
    dict of str to tuple of int
        Open dimensions become 1 on axis 0 and where samples are counted, otherwise 224 (images), 112 (volumes) or 16;
        those with the same name become the same.

    Raises
    ------
    UsageError
        If `given` names an unknown input, has another rank, contradicts a fixed dimension or itself, or
        if an input declares no shape and none is given.
    """
    given = dict(given or {})
    unknown = [name for name in given if name not in graph.inputs]
    if unknown:
        raise UsageError(
            f"input shape given for {quote(unknown[0])}, which is no input of the model",
            hint=f"inputs: {', '.join(quote(name) for name in graph.inputs)}",
        )
    tensors = {name: kind for name, kind in graph.inputs.items() if kind.WhichOneof("value") == "tensor_type"}
    axes = dict(zip(tensors, sample_axes([Declared.of(kind) for kind in tensors.values()]), strict=True))
    sizes = _named(tensors, given, axes)
    return {name: _concrete(name, kind, (given.get(name), axes[name]), sizes, other) for name, kind in tensors.items()}


def assumed(graph: Graph, given: Mapping[str, Sequence[int]]) -> dict[str, frozenset[int]]:
    """Return the open axes, besides that of the samples, of inputs of which no shape was given."""
    declared = {name: Declared.of(kind) for name, kind in graph.inputs.items()}
    axes = dict(zip(declared, sample_axes(list(declared.values())), strict=True))
    open_axes = {name: frozenset(one.open) - {axes[name]} for name, one in declared.items() if one is not None}
    return {name: opened for name, opened in open_axes.items() if opened and name not in given}


def _named(
    tensors: Mapping[str, TypeProto], given: Mapping[str, Sequence[int]], axes: Mapping[str, int | None]
) -> dict[str, tuple[int, bool]]:
    """Size of every named dimension, and whether it may count samples: given sizes first, then defaults."""
    sizes: dict[str, tuple[int, bool]] = {}
    places = [
        (name, axis, dim.dim_param, len(kind.tensor_type.shape.dim))
        for name, kind in tensors.items()
        for axis, dim in enumerate(kind.tensor_type.shape.dim)
        if is_name(dim.dim_param)
    ]
    first = {param for name, axis, param, _ in places if axis in (0, axes[name])}
    for name, axis, param, rank in places:
        if name in given and len(given[name]) == rank:
            size = int(given[name][axis])
            if sizes.get(param, (size, False))[0] != size:
                raise UsageError(f"the dimension {quote(param)} is given as {sizes[param][0]} and as {size}")
            sizes[param] = size, param in first
    for _, _, param, rank in places:
        sizes.setdefault(param, (1 if param in first else _FREE.get(rank, 16), param in first))
    return sizes


def _concrete(
    name: str,
    kind: TypeProto,
    known: tuple[Sequence[int] | None, int | None],
    sizes: Mapping[str, tuple[int, bool]],
    other: bool,
) -> tuple[int, ...]:
    """Fill the open dimensions of one input, of which a given shape and the axis of samples are known."""
    given, samples = known
    if not kind.tensor_type.HasField("shape"):
        if given is None:
            raise UsageError(
                f"input {quote(name)} declares no shape, so sizes cannot be known",
                hint=f"give one: --input-shape {name}=1x3x224x224",
            )
        return tuple(given)
    dims = kind.tensor_type.shape.dim
    declared = [dim.dim_value if dim.dim_value > 0 else None for dim in dims]
    if given is not None:
        fits = len(given) == len(declared) and all(size > 0 for size in given)
        if not fits or any(fixed not in (None, size) for fixed, size in zip(declared, given, strict=True)):
            shown = "x".join("?" if fixed is None else str(fixed) for fixed in declared)
            raise UsageError(f"input {quote(name)} has the shape {shown}, got {'x'.join(map(str, given))}")
    chosen = []
    for axis, fixed in enumerate(declared):
        counts = axis in (0, samples)
        size, is_first = sizes.get(dims[axis].dim_param, (1 if counts else _FREE.get(len(declared), 16), counts))
        if given is not None:
            size = int(given[axis])
        if other:
            size = size + 1 if is_first else size * 2
        chosen.append(size if fixed is None else fixed)
    return tuple(chosen)
