# SPDX-License-Identifier: Apache-2.0
"""Bodies of `If`, `Loop` and `Scan` as part of the graph around them, and back again.

The analysis reads one flat list of nodes. The bodies of a control-flow node are laid out in it before
the node, which becomes a pseudo-operator that reads what its bodies give; names that two bodies
share are made different. What the body of a `Loop` or `Scan` is given at each iteration is made by a second
pseudo-operator in front of the body. `restore` undoes all that on an edited copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, helper

__all__ = ["DOMAIN", "ENTRIES", "LOOPS", "Flat", "flatten", "owner_name"]

DOMAIN = "graphprune.flat"
"""Domain of the pseudo-operators that stand for control-flow nodes in the flat graph."""

LOOPS = frozenset({"Loop", "Scan"})
"""Operators that run a body several times."""

ENTRIES = frozenset({"LoopEntry", "ScanEntry"})
"""Pseudo-operators in front of the body of a loop; they make what the body is given at each iteration."""

_CONTROL = frozenset({"If", *LOOPS})
_OUTER = 0
_SCAN_AXES = 9
"""First operator set in which `Scan` has no batch axis and no list of lengths."""


@dataclass(frozen=True, eq=False)
class _Body:
    """One body.

    Attributes
    ----------
    owner : str
        Flat name of the first output of the node on which it hangs.
    node : NodeProto
        That node.
    attribute : AttributeProto
        What holds the body.
    takes : list of str
        Flat names of its inputs.
    """

    owner: str
    node: NodeProto
    attribute: AttributeProto
    takes: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Flat:
    """A model without bodies, and what is needed to put them back.

    Attributes
    ----------
    proto : ModelProto
        The flat model; the very object that was given where there is nothing to lay out.
    home : dict of str to int
        Values and initializers that belong to a body, and its number.
    declared : set of str
        Inputs and results of bodies whose declared type stands among the declared values of the flat graph.
    """

    proto: ModelProto
    home: dict[str, int] = field(default_factory=dict)
    bodies: list[_Body] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    like: Flat | None = None

    def distinct(self, name: str, *, taken: bool) -> str:
        """Return a name for what the last body calls `name`, which something else may have `taken`."""
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

    def around(self, place: int) -> int:
        """Return the number of the body around a body; 0 is the main graph."""
        return self.home.get(self.bodies[place - 1].owner, _OUTER)

    def restore(self, edited: ModelProto) -> ModelProto:
        """Return an edited copy of the flat model with its bodies where they were."""
        if self.is_flat:
            return edited
        result = ModelProto()
        result.CopyFrom(edited)
        for kept in list(result.opset_import):
            if kept.domain == DOMAIN:
                result.opset_import.remove(kept)
        places, home = self._places(edited.graph), self._homes(edited.graph)
        before = {value.name: value.type for value in self.proto.graph.value_info}
        types = {v.name: v.type for v in edited.graph.value_info if before.get(v.name, v.type) != v.type}
        parts = [self._part(edited.graph, places, home, number) for number in range(len(self.bodies) + 1)]
        for number in range(len(self.bodies), -1, -1):
            for node in parts[number].node:
                if node.domain == DOMAIN:
                    self._attach(node, parts, types)
        for name in ("node", "initializer", "value_info"):
            result.graph.ClearField(name)
            getattr(result.graph, name).extend(getattr(parts[_OUTER], name))
        return result

    def _places(self, graph: GraphProto) -> list[int]:
        """Return the number of the body of every node; a new node goes to the innermost one around all its readers."""
        readers: dict[str, set[int]] = {}
        places = [0] * len(graph.node)
        for at in range(len(graph.node) - 1, -1, -1):
            node = graph.node[at]
            known = [self.home[name] for name in node.output if name in self.home]
            made = self._made_outside(node)
            around = {place for name in node.output for place in readers.get(name, ())}
            places[at] = known[0] if known else _OUTER if made else self._common(around)
            for name in node.input:
                readers.setdefault(name, set()).add(places[at])
        return places

    def _common(self, places: Iterable[int]) -> int:
        """Return the innermost body around all these."""
        ways = [[place, *self.outwards(place)] for place in places]
        return next((place for place in ways[0] if all(place in way for way in ways)), _OUTER) if ways else _OUTER

    def outwards(self, place: int) -> Iterable[int]:
        """Yield the numbers of the bodies around a body, from inside out; 0 is the main graph."""
        while place != _OUTER:
            place = self.around(place)
            yield place

    def _homes(self, graph: GraphProto) -> Mapping[str, int]:
        """Return the body of every initializer: a new one that a body gives must be its own."""
        stored = {tensor.name for tensor in graph.initializer} - self.home.keys()
        homes = dict(self.home)
        for node in graph.node:
            if node.domain == DOMAIN and node.op_type not in ENTRIES:
                for place, names in self._given(node):
                    homes.update((name, place) for name in names if name in stored)
        return homes

    def _given(self, node: NodeProto) -> Iterable[tuple[int, list[str]]]:
        """Yield the number of each body of a pseudo-operator, and what the node reads of what the body gives."""
        owner = owner_name(node.output)
        owned = [number for number, body in enumerate(self.bodies, start=1) if body.owner == owner]
        counts = [len(self.bodies[number - 1].attribute.g.output) for number in owned]
        at = len(node.input) - sum(counts)
        for number, count in zip(owned, counts, strict=True):
            yield number, list(node.input[at : at + count])
            at += count

    def _made_outside(self, node: NodeProto) -> bool:
        return any(name in self._outer for name in node.output)

    @cached_property
    def _outer(self) -> frozenset[str]:
        """What nodes outside all bodies make."""
        return frozenset(name for node in self.proto.graph.node for name in node.output if name not in self.home)

    def _part(self, graph: GraphProto, places: list[int], home: Mapping[str, int], number: int) -> GraphProto:
        """Collect what belongs to one body, under its old names."""
        part = GraphProto()
        nodes = (node for node, place in zip(graph.node, places, strict=True) if place == number)
        part.node.extend(node for node in nodes if node.domain != DOMAIN or node.op_type not in ENTRIES)
        part.initializer.extend(t for t in graph.initializer if home.get(t.name, _OUTER) == number)
        values = (v for v in graph.value_info if v.name not in self.declared)
        part.value_info.extend(v for v in values if self.home.get(v.name, _OUTER) == number)
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

    def _attach(self, node: NodeProto, parts: list[GraphProto], types: Mapping[str, TypeProto]) -> None:
        """Turn a pseudo-operator back into the node that it stands for; `types` holds declared types that changed."""
        edited = NodeProto()
        edited.CopyFrom(node)
        for number, names in self._given(edited):
            body = self.bodies[number - 1]
            if node.domain == DOMAIN:
                node.CopyFrom(body.node)
                for at in range(len(node.input)):
                    node.input[at] = self.renamed.get(edited.input[at], edited.input[at])
            graph = next(a.g for a in node.attribute if a.name == body.attribute.name)
            for field_name in ("node", "initializer", "value_info"):
                graph.ClearField(field_name)
                getattr(graph, field_name).extend(getattr(parts[number], field_name))
            for value, name in zip(graph.input, self.bodies[number - 1].takes, strict=True):
                _retype(value, types.get(name))
            for value, name in zip(graph.output, names, strict=True):
                value.name = self.renamed.get(name, name)
                _retype(value, types.get(name))


def _retype(value: ValueInfoProto, known: TypeProto | None) -> None:
    """Declare another type, where one is known."""
    if known is not None and value.HasField("type"):
        value.type.CopyFrom(known)


def owner_name(outputs: Iterable[str]) -> str:
    """Return the name by which a control-flow node is known: its first output that is not left out."""
    return next((name for name in outputs if name), "")


def flatten(proto: ModelProto, like: Flat | None = None) -> Flat:
    """Lay the bodies of every `If`, `Loop` and `Scan` out in the graph around it.

    A node stays what it is where something in it holds a body of another kind: what that body captures
    would have to be renamed inside it.

    Parameters
    ----------
    like : Flat, optional
        The model that `proto` was made from: names are made different where they were there, even if
        one of two equal names is gone.
    """
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if not any(_plain(node, opset) for node in proto.graph.node):
        return Flat(proto)
    flat = ModelProto()
    flat.CopyFrom(proto)
    flat.graph.ClearField("node")
    flat.opset_import.add(domain=DOMAIN, version=1)
    result = _Layout(Flat(flat, like=like), proto, opset)
    result.lay_out(proto.graph.node, _OUTER, {})
    return result.flat


def _plain(node: NodeProto, opset: int) -> bool:
    """Whether a node is a control-flow node of which every body consists of ordinary nodes and such nodes."""
    if node.op_type not in _CONTROL or node.domain not in ("", "ai.onnx") or not owner_name(node.output):
        return False
    bodies = _bodies(node)
    if node.op_type == "If":
        fits = len(bodies) == 2 and all(not body.input for body in bodies)
    else:
        fits = len(bodies) == 1
        fits = fits and (_fits_loop(node, bodies[0]) if node.op_type == "Loop" else _fits_scan(node, bodies[0], opset))
    return fits and all(_plain_body(body, opset) for body in bodies)


def _plain_body(graph: GraphProto, opset: int) -> bool:
    inner = (n for n in graph.node if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in n.attribute))
    return (
        not graph.sparse_initializer
        and not {value.name for value in graph.input} & {tensor.name for tensor in graph.initializer}
        and all(output.name in _defined(graph) for output in graph.output)
        and all(_plain(node, opset) for node in inner)
    )


def _fits_loop(node: NodeProto, body: GraphProto) -> bool:
    """Whether states are given, taken and returned in equal number; `Loop` may be given no states at all."""
    states = max(len(node.input), 2) - 2
    return len(body.input) == 2 + states and len(body.output) > states and len(node.output) <= len(body.output) - 1


def _fits_scan(node: NodeProto, body: GraphProto, opset: int) -> bool:
    scanned = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
    return (
        opset >= _SCAN_AXES
        and 0 < scanned <= len(node.input) == len(body.input)
        and len(body.output) >= len(node.input) - scanned
        and len(node.output) == len(body.output)
    )


def _bodies(node: NodeProto) -> list[GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]


def _defined(graph: GraphProto) -> set[str]:
    names = {name for node in graph.node for name in node.output}
    return names | {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}


class _Layout:
    """Appends nodes to a flat graph, those of bodies first."""

    def __init__(self, flat: Flat, source: ModelProto, opset: int) -> None:
        self.flat = flat
        self._opset = opset
        self._taken = {name for node in source.graph.node for name in node.output}
        self._taken.update(tensor.name for tensor in source.graph.initializer)
        self._taken.update(value.name for value in source.graph.input)

    def lay_out(self, nodes: Iterable[NodeProto], place: int, names: Mapping[str, str]) -> None:
        """Append the nodes of one body, in which `names` are called otherwise."""
        for node in nodes:
            copy = self._stand_in(node, names) if _plain(node, self._opset) else NodeProto()
            if not copy.op_type:
                copy.CopyFrom(node)
                for at, name in enumerate(copy.input):
                    copy.input[at] = names.get(name, name)
            for at, name in enumerate(node.output):
                copy.output[at] = names.get(name, name)
            self.flat.proto.graph.node.append(copy)
            if place != _OUTER:
                self.flat.home.update((name, place) for name in copy.output if name)

    def _stand_in(self, node: NodeProto, names: Mapping[str, str]) -> NodeProto:
        """Lay out the bodies of a node and return the pseudo-operator that stands for it."""
        bodies = [attribute for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
        bodies.sort(key=lambda attribute: attribute.name != "then_branch")  # whatever their order in the file
        entry = len(self.flat.proto.graph.node)
        given = [name for body in bodies for name in self._body(node, body, names)]
        result = NodeProto(op_type=node.op_type, domain=DOMAIN, name=node.name)
        result.input.extend([names.get(name, name) for name in node.input] + given)
        result.output.extend(node.output)
        result.attribute.extend(a for a in node.attribute if a.type != AttributeProto.GRAPH)
        if node.op_type in LOOPS:
            first = self.flat.proto.graph.node[entry].output[0]
            result.attribute.extend(
                (helper.make_attribute("entry", first), helper.make_attribute("given", len(node.input)))
            )
        return result

    def _body(self, owner: NodeProto, attribute: AttributeProto, names: Mapping[str, str]) -> list[str]:
        """Lay one body out; returns the flat names of what it gives."""
        flat, graph = self.flat, attribute.g
        flat.bodies.append(_Body(names.get(owner_name(owner.output), owner_name(owner.output)), owner, attribute))
        number = len(flat.bodies)
        own = dict(names)
        for name in sorted(_defined(graph)):
            distinct = flat.distinct(name, taken=name in self._taken)
            if distinct != name:
                own[name] = distinct
                flat.renamed[distinct] = name
            self._taken.add(distinct)
        for tensor in graph.initializer:
            stored = flat.proto.graph.initializer.add()
            stored.CopyFrom(tensor)
            stored.name = own.get(tensor.name, tensor.name)
            flat.home[stored.name] = number
        takes = flat.bodies[-1].takes
        takes.extend(own.get(value.name, value.name) for value in graph.input)
        self._declare(graph, own, number)
        if owner.op_type in LOOPS:
            entry = flat.proto.graph.node.add(op_type=f"{owner.op_type}Entry", domain=DOMAIN, name=owner.name)
            entry.output.extend(takes)
            flat.home.update((name, number) for name in entry.output)
        self.lay_out(graph.node, number, own)
        return [own.get(output.name, output.name) for output in graph.output]

    def _declare(self, graph: GraphProto, own: Mapping[str, str], number: int) -> None:
        """Take over the declared types of a body's values, of its inputs, and of what its nodes give."""
        flat = self.flat
        among = {value.name for value in graph.value_info}
        made = {name for node in graph.node for name in node.output}
        ends = {v.name: v for v in (*graph.input, *(v for v in graph.output if v.name in made))}
        shown = [value for name, value in ends.items() if name not in among and value.HasField("type")]
        for value in (*graph.value_info, *shown):
            known = flat.proto.graph.value_info.add()
            known.CopyFrom(value)
            known.name = own.get(value.name, value.name)
            flat.home[known.name] = number
        flat.declared.update(own.get(value.name, value.name) for value in shown)
