# SPDX-License-Identifier: Apache-2.0
"""Names tie a graph together: each is given once, before it is used, and hides no other.

Readers disagree about models that break this (one keeps the first initializer of a name, another the last; one
replaces an inner weight by the outer one of that name), so such models are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import AttributeProto

from graphprune.errors import ModelFileError, UnsupportedModelError, quote
from graphprune.model.validity.survey import label

__all__ = ["check_names"]


@dataclass(frozen=True)
class _Scope:
    """The body of a graph or function, with the names visible around it, from the outermost inwards."""

    body: onnx.GraphProto | onnx.FunctionProto
    outer: tuple[frozenset[str], ...]

    def sees(self, name: str) -> bool:
        return any(name in names for names in self.outer)


def check_names(proto: onnx.ModelProto) -> None:
    """Raise unless every name in `proto` is defined once, in topological order, and visible where it is used.

    Raises
    ------
    ModelFileError
        On a name that is defined twice or nowhere, on a cycle, and on nodes out of order.
    UnsupportedModelError
        If an inner graph gives a name that the graph around it gives too.
    """
    pending = [_Scope(proto.graph, ()), *(_Scope(function, ()) for function in proto.functions)]
    while pending:
        scope = pending.pop()
        given = _given(scope.body)
        defined = frozenset(_defined(scope.body, given))
        for name in defined:
            if scope.sees(name):
                raise UnsupportedModelError(f"value {quote(name)} of an inner graph hides an outer value of that name")
        _check_nodes(scope.body)
        _check_order(scope, given)
        for name in _outputs(scope.body):
            if name not in defined and not scope.sees(name):
                raise ModelFileError(f"output {quote(name)} is made by no node")
        pending.extend(_Scope(graph, (*scope.outer, defined)) for graph in _inner(scope.body.node))


def _check_nodes(body: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Raise if two nodes of a body have the same name; onnxruntime refuses such a model, but for stored constants."""
    seen: set[str] = set()
    for node in body.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            continue
        if node.name and node.name in seen:
            raise ModelFileError(
                f"two nodes are called {quote(node.name)}, the second is {label(node)}",
                hint="names of nodes must differ, or be empty; runtimes refuse the model",
            )
        seen.add(node.name)


def _given(body: onnx.GraphProto | onnx.FunctionProto) -> set[str]:
    """Return the names that exist before the first node: inputs and initializers."""
    if isinstance(body, onnx.FunctionProto):
        return set(_once(body.input, "input"))
    inputs = set(_once((value.name for value in body.input), "input"))
    dense = [tensor.name for tensor in body.initializer]
    stored = set(_once([*dense, *(tensor.values.name for tensor in body.sparse_initializer)], "initializer"))
    if "" in stored:
        raise ModelFileError("an initializer has no name")
    return inputs | stored


def _defined(body: onnx.GraphProto | onnx.FunctionProto, given: set[str]) -> set[str]:
    """Return all names of a body; raise if two nodes, or a node and an input, give the same."""
    defined = set(given)
    for node in body.node:
        for name in node.output:
            if name in defined:
                raise ModelFileError(
                    f"value {quote(name)} is defined twice, the second time by {label(node)}", hint=_TWO_MODELS
                )
            if name:
                defined.add(name)
    return defined


_TWO_MODELS = "the file may hold two models one after the other, or was damaged; export it again"


def _once(names: Iterable[str], kind: str) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelFileError(f"two {kind}s are called {quote(name)}", hint=_TWO_MODELS)
        seen.add(name)
        yield name


def _outputs(body: onnx.GraphProto | onnx.FunctionProto) -> list[str]:
    if isinstance(body, onnx.FunctionProto):
        return list(body.output)
    return [value.name for value in body.output]


def _inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield attribute.g
            elif attribute.type == AttributeProto.GRAPHS:
                yield from attribute.graphs


def _check_order(scope: _Scope, given: set[str]) -> None:
    """Raise unless each node's inputs are given, made by an earlier node, or visible from outside."""
    nodes = list(scope.body.node)
    available = set(given)
    for node in nodes:
        for name in node.input:
            if name and name not in available and not scope.sees(name):
                raise _disorder(nodes, node, name)
        available.update(node.output)


def _disorder(nodes: Sequence[onnx.NodeProto], node: onnx.NodeProto, name: str) -> ModelFileError:
    """Say why `node` cannot read `name`: nobody makes it, the graph has a cycle, or the order is wrong."""
    makers = {output: index for index, maker in enumerate(nodes) for output in maker.output if output}
    if name not in makers:
        return ModelFileError(f"{label(node)} reads {quote(name)}, which nothing defines")
    cycle = _cycle(nodes, makers)
    if cycle:
        shown = " -> ".join(label(nodes[index]) for index in cycle[:5]) + (" -> ..." if len(cycle) > 5 else "")
        return ModelFileError(f"the graph has a cycle of {len(cycle)} nodes: {shown}")
    return ModelFileError(
        f"{label(node)} reads {quote(name)} before {label(nodes[makers[name]])} makes it",
        hint="sort the nodes topologically, for instance with onnx_graphsurgeon's Graph.toposort",
    )


def _cycle(nodes: Sequence[onnx.NodeProto], makers: dict[str, int]) -> list[int]:
    """Return the nodes of one cycle in order, or an empty list. O(nodes + edges), by removing what is computable."""
    needs = [{makers[name] for name in node.input if name in makers} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for index, sources in enumerate(needs):
        for source in sources:
            readers[source].append(index)
    open_count = [len(sources) for sources in needs]
    ready = [index for index, count in enumerate(open_count) if count == 0]
    while ready:
        for reader in readers[ready.pop()]:
            open_count[reader] -= 1
            if open_count[reader] == 0:
                ready.append(reader)
    stuck = {index for index, count in enumerate(open_count) if count}
    if not stuck:
        return []
    path: dict[int, None] = {}
    index = min(stuck)
    while index not in path:
        path[index] = None
        index = min(needs[index] & stuck)
    walked = list(path)
    cycle = walked[walked.index(index) :][::-1]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]
