# SPDX-License-Identifier: Apache-2.0
"""What nobody reads: nodes and initializers that fall with their last reader, and those that never had one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from onnx import ModelProto, NodeProto

from graphprune.model.files.messages import copy_but

__all__ = ["read_names", "remove_unread", "without_unread"]


def read_names(model: ModelProto) -> set[str]:
    """Return the names that some node reads, that the model gives, or that it takes: weights, before IR version 4."""
    ends = (*model.graph.output, *model.graph.input)
    return {*_readings(model), *(value.name for value in ends)}


def without_unread(model: ModelProto) -> ModelProto:
    """Return a model without stored tensors that nobody reads, itself if there are none.

    onnxruntime drops them one by one, and takes the square of their number for that.
    """
    read = read_names(model)
    if all(tensor.name in read for tensor in model.graph.initializer):
        return model
    light = ModelProto()
    copy_but(model, light, "graph")
    copy_but(model.graph, light.graph, "initializer")
    light.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    return light


def remove_unread(result: ModelProto, source: ModelProto) -> None:
    """Drop nodes and initializers that had readers before and have none now."""
    graph = result.graph
    had_readers = set(_readings(source))
    outputs = {value.name for value in graph.output}
    declared = {value.name for value in graph.input}
    readers = Counter(_readings(result))
    readers.update(outputs)
    alive = [True] * len(graph.node)
    # Readers stand behind what they read, so one pass from the end finds all that falls with them.
    for at in range(len(graph.node) - 1, -1, -1):
        node = graph.node[at]
        if any(name in had_readers for name in node.output) and not any(readers[name] for name in node.output):
            alive[at] = False
            readers.subtract(_reads(node))
    _keep(graph.node, alive)
    made = {name for node in graph.node for name in node.output} | declared | outputs
    _keep(
        graph.initializer,
        [readers[t.name] > 0 or t.name not in had_readers or t.name in made for t in graph.initializer],
    )
    made |= {tensor.name for tensor in graph.initializer}
    _keep(graph.value_info, [value.name in made for value in graph.value_info])


def _keep(field: Any, alive: Sequence[bool]) -> None:
    """Delete the elements of a repeated field that are not to stay."""
    for at in range(len(alive) - 1, -1, -1):
        if not alive[at]:
            del field[at]


def _readings(model: ModelProto) -> Iterator[str]:
    """Yield every name that some node reads, as often as it does."""
    for node in model.graph.node:
        yield from _reads(node)


def _reads(node: NodeProto) -> Iterator[str]:
    """Yield the names that a node and the bodies on it read."""
    pending = [node]
    while pending:
        current = pending.pop()
        yield from current.input
        for attribute in current.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                pending.extend(body.node)
                yield from (value.name for value in body.output)
