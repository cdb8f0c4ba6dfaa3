# SPDX-License-Identifier: Apache-2.0
"""Proportion: what a file asks for, against what it holds and is fed, before anything is made of it.

A constant of a few bytes says how large a value is. What depends on no input is computed by whoever opens the file, at
once or for every sample: networks do little of that, so much of it is what only a hostile or a damaged file asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Final

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
    given = sum(prod(shapes.dims.get(name, ())) for name in (*graph.inputs, *graph.initializers))
    for name, dims in shapes.dims.items():
        if prod(dims) > _MOST_ELEMENTS:
            raise UnsafeModelError(
                f"value {quote(name)} of shape {list(dims)} has more elements than the limit {_MOST_ELEMENTS}",
                hint="if its size follows from an input, give a smaller one: --input-shape NAME=SIZES",
            )
        if prod(dims) > max(_LARGE, _INFLATED * given):
            raise UnsafeModelError(
                f"value {quote(name)} of shape {list(dims)} has more than {_INFLATED} times as many elements as all "
                f"inputs and weights together have ({given})",
                hint="look at the sizes that the file gives to the nodes in front of it",
            )
    total = sum(_made(node, shapes.dims) for node in graph.nodes)
    if total > max(_LARGE_TOGETHER, _INFLATED * given):
        worst = max(graph.nodes, key=lambda node: _made(node, shapes.dims))
        raise UnsafeModelError(
            f"all values together have {total:.1e} elements, more than {_INFLATED} times as many as all inputs and "
            f"weights ({given}); the largest is made by {worst!r}",
            hint="look at the sizes that the file gives to the nodes in front of it",
        )
    _check_standing(graph, shapes.dims, given)


def _check_standing(graph: Graph, dims: Mapping[str, tuple[int, ...]], given: int) -> None:
    """Hold what depends on no input to what is stored and fed, and to what depends on inputs."""
    standing, fed = _apart(graph)
    stored = [node for node in standing if node.op_type == "Constant" and not node.domain]
    given += sum(_made(node, dims) for node in stored)
    computed = [node for node in standing if node.op_type != "Constant" or node.domain]
    made = {node: float(_made(node, dims)) for node in computed}
    steps = {node: effort(node, dims) for node in computed}
    for costs, most, what in (
        (made, max(_STANDING_ELEMENTS, _STANDING_TIMES * given), "have {} elements"),
        (steps, max(_STANDING_STEPS, _STEPS_TIMES * given), "take about {} steps to compute"),
    ):
        total = sum(costs.values())
        if total <= most:
            continue
        others = sum(_made(node, dims) if costs is made else effort(node, dims) for node in fed)
        if total > others:
            worst = max(costs, key=lambda node: costs[node])
            raise UnsafeModelError(
                f"values that depend on no data {what.format(f'{total:.1e}')}, more than the limit {most:.1e} and "
                f"than all others; most of that is at {worst!r}",
                hint="compute them once and store what is needed of them: "
                "onnxruntime does so with SessionOptions.optimized_model_filepath",
            )


def _made(node: Node, dims: Mapping[str, tuple[int, ...]]) -> int:
    return sum(prod(dims[name]) for name in node.outputs if name in dims)


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
