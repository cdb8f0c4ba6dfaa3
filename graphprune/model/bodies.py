# SPDX-License-Identifier: Apache-2.0
"""Branches of `If` as part of the graph around them, and back again.

The analysis reads one flat list of nodes. The bodies of an `If` are laid out in it before the
node, which becomes a pseudo-operator that reads what its branches give; names that two branches
share are made different. `restore` undoes that on an edited copy. Bodies of `Loop` and `Scan`
carry state from turn to turn and stay what they are: nodes that freeze what touches them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

__all__ = ["DOMAIN", "Flat", "flatten"]

DOMAIN = "graphprune.flat"
"""Domain of the pseudo-operator that stands for an `If` in the flat graph."""

_OUTER = 0


@dataclass(frozen=True, eq=False)
class _Body:
    """One branch: the flat name of its `If`'s first output, that node, and the attribute that holds the branch."""

    owner: str
    node: NodeProto
    attribute: AttributeProto


@dataclass(eq=False)
class Flat:
    """A model without `If` bodies, and what is needed to put them back.

    Attributes
    ----------
    proto : ModelProto
        The flat model; the very object that was given where there is nothing to lay out.
    home : dict of str to int
        Values and initializers that belong to a branch, and its number.
    """

    proto: ModelProto
    home: dict[str, int] = field(default_factory=dict)
    bodies: list[_Body] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    like: Flat | None = None

    def distinct(self, name: str, *, taken: bool) -> str:
        """Return a name for what the last branch calls `name`, which something else may have `taken`."""
        number = len(self.bodies)
        if self.like is not None:
            last = self.bodies[-1].owner, self.bodies[-1].attribute.name
            known = [(body.owner, body.attribute.name) for body in self.like.bodies]
            number = known.index(last) + 1 if last in known else number
            taken = f"{name}@{number}" in self.like.renamed
        return f"{name}@{number}" if taken else name

    @property
    def is_flat(self) -> bool:
        """Whether nothing had to be laid out."""
        return not self.bodies

    def restore(self, edited: ModelProto) -> ModelProto:
        """Return an edited copy of the flat model with its branches where they were."""
        if self.is_flat:
            return edited
        result = ModelProto()
        result.CopyFrom(edited)
        for kept in list(result.opset_import):
            if kept.domain == DOMAIN:
                result.opset_import.remove(kept)
        places = self._places(edited.graph)
        parts = [self._part(edited.graph, places, number) for number in range(len(self.bodies) + 1)]
        for number in range(len(self.bodies), -1, -1):
            for node in parts[number].node:
                if node.domain == DOMAIN:
                    self._attach(node, parts)
        for name in ("node", "initializer", "value_info"):
            result.graph.ClearField(name)
            getattr(result.graph, name).extend(getattr(parts[_OUTER], name))
        return result

    def _places(self, graph: GraphProto) -> list[int]:
        """Return the number of the branch of every node; a new node goes where its only readers are."""
        readers: dict[str, set[int]] = {}
        places = [0] * len(graph.node)
        for at in range(len(graph.node) - 1, -1, -1):
            node = graph.node[at]
            known = [self.home[name] for name in node.output if name in self.home]
            made = self._made_outside(node)
            around = {place for name in node.output for place in readers.get(name, ())}
            places[at] = known[0] if known else _OUTER if made or len(around) != 1 else next(iter(around))
            for name in node.input:
                readers.setdefault(name, set()).add(places[at])
        return places

    def _made_outside(self, node: NodeProto) -> bool:
        return any(name in self._outer for name in node.output)

    @property
    def _outer(self) -> frozenset[str]:
        if not hasattr(self, "_outer_names"):
            names = (name for node in self.proto.graph.node for name in node.output if name not in self.home)
            self._outer_names = frozenset(names)
        return self._outer_names

    def _part(self, graph: GraphProto, places: list[int], number: int) -> GraphProto:
        """Collect what belongs to one branch, under its old names."""
        part = GraphProto()
        part.node.extend(node for node, place in zip(graph.node, places, strict=True) if place == number)
        part.initializer.extend(t for t in graph.initializer if self.home.get(t.name, _OUTER) == number)
        part.value_info.extend(v for v in graph.value_info if self.home.get(v.name, _OUTER) == number)
        for node in part.node:
            if node.domain == DOMAIN:
                continue
            for names in (node.input, node.output):
                for at, name in enumerate(names):
                    names[at] = self.renamed.get(name, name)
        for tensor in part.initializer:
            tensor.name = self.renamed.get(tensor.name, tensor.name)
        for value in part.value_info:
            value.name = self.renamed.get(value.name, value.name)
        return part

    def _attach(self, node: NodeProto, parts: list[GraphProto]) -> None:
        """Turn a pseudo-operator back into the `If` that it stands for."""
        owner, condition = node.output[0], node.input[0]
        for number, body in enumerate(self.bodies, start=1):
            if body.owner == owner:
                if node.domain == DOMAIN:
                    node.CopyFrom(body.node)
                    node.input[0] = self.renamed.get(condition, condition)
                graph = next(a.g for a in node.attribute if a.name == body.attribute.name)
                for name in ("node", "initializer", "value_info"):
                    graph.ClearField(name)
                    getattr(graph, name).extend(getattr(parts[number], name))


def flatten(proto: ModelProto, like: Flat | None = None) -> Flat:
    """Lay the branches of every `If` out in the graph around it.

    An `If` stays what it is where a branch holds another kind of body: what that body captures
    would have to be renamed inside it.

    Parameters
    ----------
    like : Flat, optional
        The model that `proto` was made from: names are made different where they were there, even if
        one of two equal names is gone.
    """
    if not any(_is_if(node) for node in proto.graph.node):
        return Flat(proto)
    flat = ModelProto()
    flat.CopyFrom(proto)
    flat.graph.ClearField("node")
    flat.opset_import.add(domain=DOMAIN, version=1)
    result = Flat(flat, like=like)
    taken = {name for node in proto.graph.node for name in node.output}
    taken.update(tensor.name for tensor in proto.graph.initializer)
    taken.update(value.name for value in proto.graph.input)
    _lay_out(result, proto.graph.node, _OUTER, {}, taken)
    return result if result.bodies else Flat(proto)


def _is_if(node: NodeProto) -> bool:
    return node.op_type == "If" and node.domain in ("", "ai.onnx")


def _plain(node: NodeProto) -> bool:
    """Whether every body below this `If` consists of ordinary nodes and such `If`s."""
    graphs = [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
    inner = [item for graph in graphs for item in graph.node]
    with_bodies = [
        n for n in inner if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in n.attribute)
    ]
    return (
        all(not graph.input and not graph.sparse_initializer for graph in graphs)
        and all(_is_if(item) and _plain(item) for item in with_bodies)
        and all(output.name in _defined(graph) for graph in graphs for output in graph.output)
    )


def _defined(graph: GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}


def _lay_out(flat: Flat, nodes: Iterable[NodeProto], place: int, names: dict[str, str], taken: set[str]) -> None:
    """Append nodes to the flat graph, those of branches first."""
    for node in nodes:
        copy = flat.proto.graph.node.add()
        copy.CopyFrom(node)
        if _is_if(node) and _plain(node):
            # The copy was appended too early: the branches come before it.
            del flat.proto.graph.node[-1]
            branches = [attribute for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
            given = [name for body in branches for name in _lay_out_body(flat, node, body, names, taken)]
            copy = flat.proto.graph.node.add(op_type="If", domain=DOMAIN, name=node.name)
            copy.input.extend([names.get(name, name) for name in node.input] + given)
            copy.output.extend(names.get(name, name) for name in node.output)
            if place != _OUTER:
                flat.home.update((name, place) for name in copy.output if name)
            continue
        for fields in (copy.input, copy.output):
            for at, name in enumerate(fields):
                fields[at] = names.get(name, name)
        if place != _OUTER:
            flat.home.update((name, place) for name in copy.output if name)


def _lay_out_body(
    flat: Flat, owner: NodeProto, attribute: AttributeProto, names: dict[str, str], taken: set[str]
) -> list[str]:
    """Lay one branch out; returns the flat names of what it gives."""
    graph = attribute.g
    flat.bodies.append(_Body(names.get(owner.output[0], owner.output[0]), owner, attribute))
    number = len(flat.bodies)
    own = dict(names)
    for name in sorted(_defined(graph)):
        distinct = flat.distinct(name, taken=name in taken)
        if distinct != name:
            own[name] = distinct
            flat.renamed[distinct] = name
        taken.add(distinct)
    for tensor in graph.initializer:
        stored = flat.proto.graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = own.get(tensor.name, tensor.name)
        flat.home[stored.name] = number
    for value in graph.value_info:
        known = flat.proto.graph.value_info.add()
        known.CopyFrom(value)
        known.name = own.get(value.name, value.name)
        flat.home[known.name] = number
    _lay_out(flat, graph.node, number, own, taken)
    return [own.get(output.name, output.name) for output in graph.output]
