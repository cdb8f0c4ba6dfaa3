# SPDX-License-Identifier: Apache-2.0
"""Second sizes: other inputs with which a file has to run, wherever the original takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper

from graphprune.model.sizes.batch_axes import Declared, is_name, sample_axes
from graphprune.model.sizes.lengths import sums
from graphprune.verification.spec import FedInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.model.graph import Graph

__all__ = ["dtype_name", "input_specs", "second_sizes"]

_COARSE = 32
"""What spatial sizes grow by: networks that halve them several times take multiples of this."""


def input_specs(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FedInput]:
    """Return what is fed to a graph, in its own types."""
    return {name: FedInput(list(shape), dtype_name(graph, name)) for name, shape in shapes.items()}


def dtype_name(graph: Graph, name: str) -> str:
    """Return the name of the numpy type of an input."""
    return str(helper.tensor_dtype_to_np_dtype(graph.inputs[name].tensor_type.elem_type))


def second_sizes(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, list[int]]]:
    """Return other sizes of the inputs.

    Parameters
    ----------
    graph : Graph
    shapes : mapping of str to tuple of int
        Sizes that the original takes.

    Returns
    -------
    list of dict of str to list of int
        First with every open dimension changed, each by another amount; where there are several, then all by the same,
        and with one of them changed at a time. Dimensions of one name change together, and what is as long as others
        together changes with them. Empty where nothing is open.
    """
    added = sums(graph)
    declared = {name: Declared.of(graph.inputs[name]) for name in shapes}
    samples = dict(zip(declared, sample_axes(list(declared.values())), strict=True))
    places: dict[str, list[tuple[str, int]]] = {}
    for name, one in declared.items():
        for axis in one.open if one is not None else ():
            if (name, axis) in added:
                continue
            param = one.names[axis] if one is not None else ""
            # Samples are counted by one number, whatever it is called at each input.
            key = "samples" if axis == samples[name] else param if is_name(param) else f"{name}.{axis}"
            places.setdefault(key, []).append((name, axis))
    changes = [
        {place: _other(shapes[place[0]][place[1]], counts=key == "samples") for place in group}
        for key, group in places.items()
    ]
    if len(changes) > 1:
        alike = {place: size for change in changes for place, size in change.items()}
        free = [key for key in places if key != "samples"]
        steps = {place: free.index(key) for key in free for place in places[key]}
        apart = {
            place: size + (size - shapes[place[0]][place[1]]) * steps.get(place, 0) for place, size in alike.items()
        }
        changes = [apart, *([alike] if apart != alike else []), *changes]
    for change in changes:
        for place, terms in added.items():
            moved = sum(change.get(term, shapes[term[0]][term[1]]) for term in terms if not isinstance(term, int))
            before = sum(shapes[term[0]][term[1]] for term in terms if not isinstance(term, int))
            change[place] = shapes[place[0]][place[1]] + moved - before
    return [
        {name: [change.get((name, axis), size) for axis, size in enumerate(shape)] for name, shape in shapes.items()}
        for change in changes
    ]


def _other(size: int, *, counts: bool) -> int:
    return size + 1 if counts else size + _COARSE if size >= _COARSE else 2 * size
