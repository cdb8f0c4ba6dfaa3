# SPDX-License-Identifier: Apache-2.0
"""Proportion: what a file asks for, against what it holds and is fed, before anything is made of it.

A constant of a few bytes says how large a value is. What depends on no input is computed by whoever opens the file, at
once or for every sample: networks do little of that, so much of it is what only a hostile or a damaged file asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Final

from onnx import TensorProto

from graphprune.errors import UnsafeModelError, quote
from graphprune.model.evaluation.effort import effort
from graphprune.model.graph import Graph, Node
from graphprune.model.inference.known import Shapes

__all__ = ["check_proportion"]

_MOST_ELEMENTS: Final = 1 << 36
_LARGE: Final = 1 << 25
_LARGE_TOGETHER: Final = 1 << 28
_INFLATED: Final = 1 << 12
"""Times that large values, each and all together, may be larger than all that is fed and stored."""
_TEXT: Final = 32
"""Numbers that take as much memory as a text."""
_BESIDES: Final = {"Unique": 64}
"""Numbers that a kernel keeps for each element that it reads, beside what it makes: this one grows a tree of them."""
_STANDING_ELEMENTS: Final = 1 << 27
_STANDING_TIMES: Final = 16
"""Elements that all values may have together which depend on no input, at least, and for each one stored or fed."""
_STANDING_STEPS: Final = 1 << 30
_STEPS_TIMES: Final = 256
"""Steps (:mod:`graphprune.model.evaluation.effort`) that these may take: at least, and per element that is given."""


def check_proportion(graph: Graph, shapes: Shapes) -> None:
    """Refuse what no machine can run, and what grows out of all proportion.

    Raises
    ------
    UnsafeModelError
        If a value is too large, or what depends on no input is, or takes too long.

    Complexity: O(nodes).
    """
    counts = {name: _count(dims, shapes.dtypes.get(name)) for name, dims in shapes.dims.items()}
    given = sum(counts.get(name, 1) for name in (*graph.inputs, *graph.initializers))
    for name, count in counts.items():
        if count > _MOST_ELEMENTS:
            raise UnsafeModelError(
                f"value {_shown(name, shapes)} has more elements than the limit {_MOST_ELEMENTS}",
                hint="if its size follows from an input, give a smaller one: --input-shape NAME=SIZES",
            )
        if count > max(_LARGE, _INFLATED * given):
            raise UnsafeModelError(
                f"value {_shown(name, shapes)} has more than {_INFLATED} times as many elements as all "
                f"inputs and weights together have ({given})",
                hint="look at the sizes that the file gives to the nodes in front of it",
            )
    total = sum(_made(node, counts) for node in graph.nodes)
    if total > max(_LARGE_TOGETHER, _INFLATED * given):
        worst = max(graph.nodes, key=lambda node: _made(node, counts))
        raise UnsafeModelError(
            f"all values together, and what is kept to make them, have {total:.1e} elements, more than {_INFLATED} "
            f"times as many as all inputs and weights ({given}); the most is made by {worst!r}",
            hint="look at the sizes that the file gives to the nodes in front of it",
        )
    _check_standing(graph, shapes.dims, counts, given)


def _count(dims: tuple[int, ...], elem_type: int | None) -> int:
    """Return how many elements a value has; a text counts as many."""
    return prod(dims) * (_TEXT if elem_type == TensorProto.STRING else 1)


def _shown(name: str, shapes: Shapes) -> str:
    texts = f" of texts, which count as {_TEXT} elements each," if shapes.dtypes.get(name) == TensorProto.STRING else ""
    return f"{quote(name)} of shape {list(shapes.dims[name])}{texts}"


def _check_standing(graph: Graph, dims: Mapping[str, tuple[int, ...]], counts: Mapping[str, int], given: int) -> None:
    """Hold what depends on no input to what is stored and fed, and to what depends on inputs."""
    standing, fed = _apart(graph)
    stored = [node for node in standing if node.op_type == "Constant" and not node.domain]
    given += sum(_made(node, counts) for node in stored)
    computed = [node for node in standing if node.op_type != "Constant" or node.domain]
    made = {node: float(_made(node, counts)) for node in computed}
    steps = {node: effort(node, dims) for node in computed}
    for costs, most, what in (
        (made, max(_STANDING_ELEMENTS, _STANDING_TIMES * given), "have {} elements"),
        (steps, max(_STANDING_STEPS, _STEPS_TIMES * given), "take about {} steps to compute"),
    ):
        total = sum(costs.values())
        if total <= most:
            continue
        others = sum(_made(node, counts) if costs is made else effort(node, dims) for node in fed)
        if total > others:
            worst = max(costs, key=lambda node: costs[node])
            raise UnsafeModelError(
                f"values that depend on no data {what.format(f'{total:.1e}')}, more than the limit {most:.1e} and "
                f"than all others; most of that is at {worst!r}",
                hint="compute them once and store what is needed of them: "
                "onnxruntime does so with SessionOptions.optimized_model_filepath",
            )


def _made(node: Node, counts: Mapping[str, int]) -> int:
    besides = _BESIDES.get(node.op_type, 0) * sum(counts.get(name, 0) for name in node.inputs)
    return sum(counts.get(name, 0) for name in node.outputs) + besides


def _apart(graph: Graph) -> tuple[list[Node], list[Node]]:
    """Return the nodes that read no input, be it only its shape, and those that do."""
    standing, fed = list[Node](), list[Node]()
    flowing = set(graph.inputs)
    for node in graph.nodes:
        measures = node.op_type in ("Shape", "Size") and not node.domain
        if measures or flowing.isdisjoint((*node.inputs, *node.captured)):
            standing.append(node)
        else:
            fed.append(node)
            flowing.update(filter(None, node.outputs))
    return standing, fed
