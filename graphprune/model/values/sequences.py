# SPDX-License-Identifier: Apache-2.0
"""Loops that collect tensors in a sequence, written out as the nodes that they run.

TorchScript turns ``torch.tensor_split`` and the like into a `Loop` that puts slices into a sequence, a
constant number of times, and picks elements out of it afterwards. The slices of one iteration need not be as
long as those of the next, so no shapes hold for the body as a whole; and nothing is seen through a
sequence. Where the number of iterations is a small constant, such a loop is replaced by copies of its body, and
what is read from sequences of known elements by these elements. Other loops stay loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.array_types import Array
from graphprune.model.evaluation.arithmetic import evaluate
from graphprune.model.graph import Node

__all__ = ["spell_out"]


_MOST_ITERATIONS = 64
_MOST_NODES = 2048
"""Copies of nodes that one loop may become."""
_MOST_ELEMENTS = 1024
"""Values with more elements are no sizes."""
_ARITHMETIC = frozenset(
    {
        *("Add", "And", "Cast", "Concat", "Div", "Equal", "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mod"),
        *("Mul", "Neg", "Not", "Or", "ReduceProd", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"),
    }
)


def spell_out(proto: ModelProto) -> ModelProto:
    """Return the model with such loops written out; the same object where there are none."""
    if not any(_collects(node) for node in proto.graph.node):
        return proto
    known = _Known(proto)
    unrolled = _Unrolled(proto, known)
    nodes = unrolled.run()
    if nodes is None:
        return proto
    nodes = _without_sequences(nodes, known)
    result = ModelProto()
    result.CopyFrom(proto)
    result.graph.ClearField("node")
    result.graph.node.extend(_read(nodes, proto.graph))
    result.graph.initializer.extend(unrolled.added)
    made = {name for node in result.graph.node for name in node.output}
    made.update(tensor.name for tensor in result.graph.initializer)
    values = [value for value in result.graph.value_info if value.name in made]
    result.graph.ClearField("value_info")
    result.graph.value_info.extend(values)
    return result


def _collects(node: NodeProto) -> bool:
    """Whether a node is a loop of which some state is a sequence, and that holds no bodies in its body."""
    if node.op_type != "Loop" or node.domain not in ("", "ai.onnx"):
        return False
    body = _body(node)
    return any(value.type.HasField("sequence_type") for value in body.input) and not any(
        attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
        for inner in body.node
        for attribute in inner.attribute
    )


def _body(node: NodeProto) -> GraphProto:
    return next((attribute.g for attribute in node.attribute if attribute.name == "body"), GraphProto())


class _Known:
    """Small values that follow from constants alone, found when they are asked for."""

    def __init__(self, proto: ModelProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._producers = {name: node for node in proto.graph.node for name in node.output}
        self._values: dict[str, Array | None] = {"": None}
        self._opsets = {
            "" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import
        }

    def add(self, nodes: Iterable[NodeProto]) -> None:
        """Take further nodes into account."""
        self._producers.update((name, node) for node in nodes for name in node.output)

    def value(self, name: str) -> Array | None:
        """Return a value, None where it is not constant or not small."""
        pending = [name]
        while pending:
            current = pending[-1]
            node = self._producers.get(current)
            missing = [item for item in (node.input if node else ()) if item not in self._values]
            if current in self._values:
                pending.pop()
            elif current in self._tensors or node is None or not self._follows(node):
                self._values[current] = self._stored(current)
            elif missing:
                pending.extend(missing)
            else:
                self._values[current] = self._computed(node)
        return self._values[name]

    def number(self, name: str) -> int | None:
        """Return a single integer, None where it is not known."""
        value = self.value(name)
        return int(value.reshape(())) if value is not None and value.size == 1 and value.dtype.kind in "iub" else None

    def _follows(self, node: NodeProto) -> bool:
        return node.op_type in _ARITHMETIC and node.domain in ("", "ai.onnx") and len(node.output) == 1

    def _stored(self, name: str) -> Array | None:
        node = self._producers.get(name)
        if node is not None and node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx"):
            return self._shape(node)
        tensor = self._tensor(name)
        if tensor is None or int(np.prod(tensor.dims, dtype=np.float64)) > _MOST_ELEMENTS:
            return None
        return None if tensor.data_location == TensorProto.EXTERNAL else numpy_helper.to_array(tensor)

    def _tensor(self, name: str) -> TensorProto | None:
        node = self._producers.get(name)
        if node is not None and node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        return self._tensors.get(name)

    def _shape(self, node: NodeProto) -> Array | None:
        """Value of a `Shape` or `Size` of something stored."""
        tensor = self._tensor(node.input[0])
        if tensor is None or node.attribute:
            return None
        dims = np.asarray(tensor.dims, dtype=np.int64)
        return dims if node.op_type == "Shape" else np.asarray(dims.prod(), dtype=np.int64)

    def _computed(self, node: NodeProto) -> Array | None:
        inputs = [self._values[name] for name in node.input]
        if any(
            value is None or value.size > _MOST_ELEMENTS for name, value in zip(node.input, inputs, strict=True) if name
        ):
            return None
        try:
            (value,) = evaluate(Node(0, node), inputs, self._opsets)
        except Exception:  # whatever the reference implementation raises means "not known"
            return None
        return value


class _Unrolled:
    """Replaces loops by what they run.

    Attributes
    ----------
    added : list of TensorProto
        Initializers of bodies that are initializers of the graph now.
    """

    def __init__(self, proto: ModelProto, known: _Known) -> None:
        self._proto = proto
        self._known = known
        self.added: list[TensorProto] = []
        graph = proto.graph
        self._taken = {name for node in graph.node for name in (*node.output, node.name)}
        self._taken.update(tensor.name for tensor in graph.initializer)
        self._taken.update(value.name for value in graph.input)

    def run(self) -> list[NodeProto] | None:
        """Return the nodes of the graph, None where no loop could be written out."""
        nodes: list[NodeProto] = []
        replaced = False
        for node in self._proto.graph.node:
            iterations = self._iterations(node) if _collects(node) else 0
            if not iterations:
                nodes.append(node)
                continue
            replaced = True
            copies = self._copies(node, iterations)
            self._known.add(copies)
            nodes.extend(copies)
        return nodes if replaced else None

    def _iterations(self, node: NodeProto) -> int:
        """Return how many iterations a loop takes, 0 where it is not to be written out."""
        body = _body(node)
        states = len(node.input) - 2
        iterations = self._known.number(node.input[0]) if states > 0 else None
        if iterations is None or not 0 < iterations <= _MOST_ITERATIONS or iterations * len(body.node) > _MOST_NODES:
            return 0
        made = [name for inner in body.node for name in inner.output]
        results = [value.name for value in body.output[1:]]
        plain = len(body.input) - 2 == states == len(results) and set(results) <= set(made)
        plain = plain and len(set(results)) == states and not body.sparse_initializer
        begins = not node.input[1] or bool(self._known.number(node.input[1]))
        return iterations if plain and begins and self._never_ends(node, body) else 0

    def _never_ends(self, node: NodeProto, body: GraphProto) -> bool:
        """Whether the body gives a condition that is true, or the one that it was given."""
        name, producers = body.output[0].name, {name: inner for inner in body.node for name in inner.output}
        while name in producers and producers[name].op_type == "Identity":
            name = producers[name].input[0]
        if name in producers and producers[name].op_type == "Constant":
            tensors = [attribute.t for attribute in producers[name].attribute if attribute.name == "value"]
            return any(bool(numpy_helper.to_array(tensor).all()) for tensor in tensors)
        return name == body.input[1].name or (name not in producers and bool(self._known.number(name)))

    def _copies(self, node: NodeProto, iterations: int) -> list[NodeProto]:
        """Return the body once for each iteration."""
        body = _body(node)
        names: dict[str, str] = {}
        for tensor in body.initializer:
            names[tensor.name] = self._free(tensor.name)
            self.added.append(TensorProto())
            self.added[-1].CopyFrom(tensor)
            self.added[-1].name = names[tensor.name]
        needed = _needed(body)
        states = list(node.input[2:])
        copies: list[NodeProto] = []
        for iteration in range(iterations):
            own = dict(names)
            own.update(zip((value.name for value in body.input[2:]), states, strict=True))
            for value, constant in zip(body.input[:2], self._number_and_condition(node, iteration), strict=True):
                own[value.name] = self._constant(constant, value.name, copies)
            last = iteration == iterations - 1
            ends = dict(zip((value.name for value in body.output[1:]), node.output, strict=False)) if last else {}
            for inner in needed:
                copies.append(self._copy(inner, own, ends))
            states = [own[value.name] for value in body.output[1:]]
        return copies

    def _constant(self, value: Array, name: str, copies: list[NodeProto]) -> str:
        """Add the number of the iteration, or the condition, as a constant."""
        free = self._free(name)
        copies.append(helper.make_node("Constant", [], [free], name=free, value=numpy_helper.from_array(value, free)))
        return free

    def _number_and_condition(self, node: NodeProto, iteration: int) -> tuple[Array, Array]:
        """Return the number of an iteration and the condition, as scalars or vectors of length 1 as the body declares.

        Where it declares nothing they are what the loop is given.
        """
        shapes: list[tuple[int, ...]] = []
        for value, given in zip(_body(node).input, node.input[:2], strict=False):
            declared = value.type.tensor_type
            known = self._known.value(given)
            free = () if known is None else known.shape
            shapes.append((1,) * len(declared.shape.dim) if declared.HasField("shape") else free)
        return np.full(shapes[0], iteration, dtype=np.int64), np.ones(shapes[1], dtype=np.bool_)

    def _copy(self, inner: NodeProto, own: dict[str, str], ends: dict[str, str]) -> NodeProto:
        """Copy one node of the body; its outputs get names of their own, which later nodes of the iteration read."""
        copy = NodeProto()
        copy.CopyFrom(inner)
        copy.name = self._free(inner.name) if inner.name else ""
        for at, name in enumerate(inner.input):
            copy.input[at] = own.get(name, name)
        for at, name in enumerate(inner.output):
            if name:
                own[name] = ends.get(name) or self._free(name)
                copy.output[at] = own[name]
        return copy

    def _free(self, name: str) -> str:
        """Return a name that nothing has, and take it."""
        number, free = 1, name
        while free in self._taken:
            number, free = number + 1, f"{name}.{number + 1}"
        self._taken.add(free)
        return free


def _needed(body: GraphProto) -> list[NodeProto]:
    """Return the nodes of a body on which its states depend."""
    wanted = {value.name for value in body.output[1:]}
    needed: list[NodeProto] = []
    for node in reversed(body.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            needed.append(node)
    return needed[::-1]


def _without_sequences(nodes: Sequence[NodeProto], known: _Known) -> list[NodeProto]:
    """Replace what reads sequences of which every element is known."""
    elements: dict[str, list[str]] = {}
    result: list[NodeProto] = []
    for node in nodes:
        made = _sequence(node, elements, known)
        if made is not None:
            elements[node.output[0]] = made
        result.append(_direct(node, elements, known) or node)
    return result


def _sequence(node: NodeProto, elements: dict[str, list[str]], known: _Known) -> list[str] | None:
    """Return the elements of the sequence that a node makes, None where they are not known or it makes none."""
    if node.op_type == "SequenceEmpty":
        return []
    if node.op_type == "SequenceConstruct":
        return list(node.input)
    before = elements.get(node.input[0]) if node.input else None
    if before is None or node.op_type not in ("Identity", "SequenceErase", "SequenceInsert"):
        return None
    after = list(before)
    slot = 2 if node.op_type == "SequenceInsert" else 1
    last = len(before) if node.op_type == "SequenceInsert" else -1
    at = known.number(node.input[slot]) if len(node.input) > slot and node.input[slot] else last
    if node.op_type == "Identity":
        return after
    if at is None or not -len(before) <= at < len(before) + (node.op_type == "SequenceInsert"):
        return None
    if node.op_type == "SequenceErase":
        del after[at]
    else:
        after.insert(at, node.input[1])
    return after


def _direct(node: NodeProto, elements: dict[str, list[str]], known: _Known) -> NodeProto | None:
    """Return what a node that reads a sequence does with its elements, None where that is not known."""
    items = elements.get(node.input[0]) if node.input else None
    if items is None:
        return None
    if node.op_type == "SequenceAt":
        at = known.number(node.input[1])
        if at is not None and -len(items) <= at < len(items):
            return helper.make_node("Identity", [items[at]], list(node.output), name=node.name)
    if node.op_type == "ConcatFromSequence" and items:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        if not attributes.get("new_axis", 0):
            return helper.make_node("Concat", items, list(node.output), name=node.name, axis=attributes["axis"])
    return None


def _read(nodes: Sequence[NodeProto], graph: GraphProto) -> list[NodeProto]:
    """Leave out what makes sequences that nobody reads any more."""
    read = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if node.op_type.startswith("Sequence") and read.isdisjoint(node.output):
            continue
        read.update(_reads(node))
        kept.append(node)
    return kept[::-1]


def _reads(node: NodeProto) -> set[str]:
    """Names that a node reads, or that stand anywhere in its bodies."""
    names: set[str] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        names.update(current.input)
        for attribute in current.attribute:
            for body in (*([attribute.g] if attribute.type == AttributeProto.GRAPH else []), *attribute.graphs):
                names.update(value.name for value in body.output)
                pending.extend(body.node)
    return names
