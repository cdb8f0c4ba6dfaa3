# SPDX-License-Identifier: Apache-2.0
"""Explanations: why the slices of one axis may go and what goes with them, or what keeps them."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.incidence import Incidence, Place
from graphprune.array_types import Ints
from graphprune.checks import contained
from graphprune.errors import InternalError, UsageError, quote
from graphprune.labels.origins import Origin
from graphprune.labels.space import Reason
from graphprune.labels.vector import Labels, stay
from graphprune.model.graph import Node

__all__ = ["AxisExplanation", "Cause", "Companion", "Explanation", "GroupExplanation", "Hop", "explain"]

_MOST_CAUSES = 6
_MOST_NAMES = 3


Subject = Literal["node", "tensor", "value", "group"]


@dataclass(frozen=True)
class Hop:
    """One step on the way from a slice to what it hangs on.

    Attributes
    ----------
    name : str
        Of the tensor or node; empty for the outside of the graph.
    op : str
        Operator of a node; empty for a tensor.
    axis : int
        Axis of a tensor; -1 for a node.
    """

    name: str
    op: str = ""
    axis: int = -1


@dataclass(frozen=True)
class Cause:
    """What keeps slices of one axis.

    Attributes
    ----------
    kind, text : str
        The kind of reason, and a sentence about it that begins with its verb.
    node, op : str
        The nearest node that is such a reason; empty where it is the graph itself.
    slices : int
        Slices of the axis that it keeps.
    others : dict of str to int
        By kind, how many other nodes would keep the same slices if this one did not.
    chain : tuple of Hop
        A shortest way from the axis to the node or graph output.
    """

    kind: str
    text: str
    node: str
    op: str
    slices: int
    others: dict[str, int]
    chain: tuple[Hop, ...]


@dataclass(frozen=True)
class AxisExplanation:
    """What is known of one axis.

    Attributes
    ----------
    tensor : str
        An activation, or the stored tensor behind a constant.
    axis, size : int
    groups : dict of str to int
        Slices that may go, by the id of their coupled group.
    causes : tuple of Cause
        What keeps all other slices; the cause of most slices first.
    """

    tensor: str
    axis: int
    size: int
    groups: dict[str, int]
    causes: tuple[Cause, ...]


@dataclass(frozen=True)
class Companion:
    """A member of a group, and what couples it.

    Attributes
    ----------
    tensor, axis, role, slices
        See `graphprune.analysis.groups.Member`.
    after : Hop or None
        The member that is nearer to where the explanation starts; None for the start.
    through : tuple of Hop
        The nodes between the two.
    """

    tensor: str
    axis: int
    role: str
    slices: int
    after: Hop | None
    through: tuple[Hop, ...]


@dataclass(frozen=True)
class GroupExplanation:
    """A coupled group as it looks from one axis: what goes with it, nearest first."""

    id: str
    name: str
    size: int
    channels: int
    exact: bool
    companions: tuple[Companion, ...]


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found.

    Attributes
    ----------
    name : str
        The name that was asked for.
    kind : {"node", "tensor", "value"}
        What has this name: a node, a constant, an activation, or a coupled group by its id.
    axes : tuple of AxisExplanation
        Of a node: axes of its constants, outputs and inputs; those that are coupled with an earlier one left out.
    groups : tuple of GroupExplanation
        The groups that `axes` mention.
    """

    name: str
    kind: Subject
    axes: tuple[AxisExplanation, ...]
    groups: tuple[GroupExplanation, ...]

    def __repr__(self) -> str:
        going = sum(1 for axis in self.axes if axis.groups)
        groups = ", ".join(group.id for group in self.groups) or "no group"
        return (
            f"Explanation({self.kind} {quote(self.name)}: {going} of {len(self.axes)} axes may lose slices of {groups})"
        )


@contained
def explain(analysis: Analysis, name: str) -> Explanation:
    """Explain what may go and what stays along every axis of a node's tensors, a constant or an activation.

    Complexity: O(labels on all inputs and outputs of nodes), no Python loop per channel.

    Parameters
    ----------
    analysis : Analysis
        Of the model.
    name : str
        Name of a node, an initializer or another value, or the id of a group. A node without a name is called by its
        first output.

    Returns
    -------
    Explanation

    Raises
    ------
    UsageError
        If nothing in the model has this name; the hint names what comes near it.
    """
    kind, nodes = _find(analysis, name)
    return _Explainer(analysis).explanation(name, kind, nodes)


def _find(analysis: Analysis, name: str) -> tuple[Subject, list[Node]]:
    graph = analysis.graph
    if name in analysis.constants:
        return "tensor", []
    nodes = [node for node in graph.nodes if node.proto.name == name]
    if nodes:
        return "node", nodes
    if name in graph.producer or name in graph.inputs:
        return "value", []
    if name in {group.id for group in analysis.groups}:
        return "group", []
    groups = (group.id for group in analysis.groups)
    known = dict.fromkeys(
        (*(node.label for node in graph.nodes), *graph.initializers, *graph.producer, *graph.inputs, *groups)
    )
    near = difflib.get_close_matches(name, known, _MOST_NAMES) if len(name) <= _LONGEST_GUESS else []
    near += [other for other in known if name and name in other and other not in near][: _MOST_NAMES - len(near)]
    hint = f"similar names: {', '.join(map(quote, near))}" if near else "`graphprune inspect -v` lists names"
    raise UsageError(f"nothing in {quote(analysis.model.name)} is called {quote(name)}", hint=hint)


_LONGEST_GUESS = 200
"""Characters up to which similar names are looked for: comparing takes quadratic time."""


class _Explainer:
    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.incidence = Incidence(analysis)
        self.starts: dict[int, tuple[Place, int]] = {}

    def explanation(self, name: str, kind: Subject, nodes: list[Node]) -> Explanation:
        if kind == "group":
            return Explanation(name, kind, (), (self._whole_group(name),))
        axes = tuple(self._axis(*entry) for entry in self._subjects(name, kind, nodes))
        groups = tuple(self._group(number, *start) for number, start in sorted(self.starts.items()))
        return Explanation(name, kind, axes, groups)

    def _whole_group(self, id_: str) -> GroupExplanation:
        """Explain a group from the first axis that makes its channels."""
        number = next(at for at, group in enumerate(self.analysis.groups) if group.id == id_)
        members = self.analysis.groups[number].members
        for member in sorted(members, key=lambda member: member.role != "out"):
            for tensor, axis, labels in self.incidence.stored(self.analysis.constants.trace(member.initializer).tensor):
                if axis == member.axis:
                    self._axis(tensor, axis, labels)
            if number in self.starts:
                return self._group(number, *self.starts[number])
        raise InternalError(f"no member of group {quote(id_)} leads into it")

    def _subjects(self, name: str, kind: str, nodes: list[Node]) -> Iterator[tuple[str, int, Labels]]:
        """Yield the axes to explain, each set of coupled slices once."""
        scope = self.analysis.scope
        if kind == "value":
            yield from ((name, axis, labels) for axis, labels in enumerate(scope.values.get(name, ())))
            return
        if kind == "tensor":
            stored = self.analysis.constants.trace(name).tensor
            entries = list(self.incidence.stored(stored)) or self._read_whole(stored)
        else:
            entries = [entry for node in nodes for entry in self.incidence.at(node)]
        # Of a node's activations only the axes that ever carried channels are of interest.
        activations = scope.values if kind == "node" and any(labels.live for *_, labels in entries) else {}
        seen: set[tuple[object, ...]] = set()
        for tensor, axis, labels in entries:
            if tensor in activations and not labels.live:
                continue
            mine: tuple[object, ...] = (self.incidence.component[labels.base].tobytes(), len(labels))
            key = mine if kind == "node" and labels.live else (tensor, axis, *mine)
            if key not in seen:
                seen.add(key)
                yield tensor, axis, labels

    def _read_whole(self, tensor: str) -> list[tuple[str, int, Labels]]:
        """Return the axes of a constant that no rule labelled, and the axes of its reader that fit them."""
        dims = self.analysis.shapes.dims.get(tensor, ())
        own = [(tensor, axis, stay(size)) for axis, size in enumerate(dims)]
        reader = next((node for node, slot in self.analysis.constants.readers(tensor) if slot >= 0), None)
        if reader is None:
            return own
        return own + [entry for entry in self.incidence.at(reader) if entry[2].live and len(entry[2]) in dims]

    def _axis(self, tensor: str, axis: int, labels: Labels) -> AxisExplanation:
        grouping = self.analysis.grouping
        atoms = grouping.atom_of[labels.base]
        times = labels.repeat * labels.tile
        live = atoms >= 0
        owners, at, counts = np.unique(grouping.group_of[atoms[live]], return_index=True, return_counts=True)
        for group, label in zip(owners.tolist(), labels.base[live][at].tolist(), strict=True):
            self.starts.setdefault(group, ((tensor, axis), label))
        groups = {
            self.analysis.groups[group].id: count * times
            for group, count in zip(owners.tolist(), counts.tolist(), strict=True)
        }
        causes = tuple(self._causes((tensor, axis), labels.base[~live], len(labels), times))
        return AxisExplanation(tensor, axis, len(labels), groups, causes)

    def _causes(self, place: Place, labels: Ints, size: int, times: int) -> Iterator[Cause]:
        """Explain labels that stay: one cause for all that the same first freeze holds."""
        whole = int((labels == 0).sum()) * times
        labels = labels[labels != 0]
        numbers, at, counts = np.unique(
            self.analysis.first_freezes[self.incidence.component[labels]], return_index=True, return_counts=True
        )
        for index in np.argsort(-counts, kind="stable")[:_MOST_CAUSES].tolist():
            slices = int(counts[index]) * times
            if numbers[index] < 0:
                text = "is one block that cannot be divided, or belongs to no stored tensor"
                yield Cause("single atom", text, "", "", slices, {}, (Hop(place[0], axis=place[1]),))
            else:
                yield self._cause(place, int(labels[at[index]]), slices)
        if whole:
            yield self._whole(place, size, whole)

    def _whole(self, place: Place, size: int, slices: int) -> Cause:
        """Explain an axis, or slices, that never had labels."""
        name, constants = place[0], self.analysis.constants
        start = Hop(name, axis=place[1])
        if name in constants:
            reader = next((node for node, slot in constants.readers(name) if slot >= 0), None)
            text = "is read whole: nothing that it holds belongs to one channel"
            node, op = (reader.label, reader.op_type) if reader else ("", "")
            return Cause("whole axis", text, node, op, slices, {}, (start,))
        origin = self.analysis.origins.of_value(name, size)
        way = tuple(Hop(node.label, node.op_type) for node in origin.way)
        return _from(origin.reason, slices, {}, (start, *way))

    def _cause(self, place: Place, label: int, slices: int) -> Cause:
        """Find the nearest freeze, and count the others that hold the same slice."""
        nearest = self.incidence.trail(place, label).nearest_freeze()
        all_numbers = self.incidence.reasons_of(int(self.incidence.component[label])).tolist()
        number, way = nearest or (all_numbers[0], [place])
        origins = {other: self._origin(other) for other in all_numbers}
        mine = origins.pop(number)
        others = {_key(origin.reason): None for origin in origins.values()}
        others.pop(_key(mine.reason), None)
        counts = Counter(kind for kind, _ in others)
        ranked = dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
        behind = tuple(Hop(node.label, node.op_type) for node in mine.way)
        return _from(mine.reason, slices, ranked, (*_hops(way), *behind))

    def _origin(self, number: int) -> Origin:
        labels, reason = self.analysis.resolution.freezes[number]
        return self.analysis.origins.behind(reason, len(labels))

    def _group(self, number: int, place: Place, label: int) -> GroupExplanation:
        """List the members of a group in the order in which they are reached from one of its slices."""
        group = self.analysis.groups[number]
        members = {(member.initializer, member.axis): member for member in group.members}
        companions: list[Companion] = []
        for branch in self.incidence.trail(place, label).tree(frozenset(members)):
            member = members.pop(branch.place)
            after = None if branch.after is None else Hop(branch.after[0], axis=branch.after[1])
            through = tuple(Hop(node.label, node.op_type) for node in branch.through)
            companions.append(
                Companion(
                    *branch.place, member.role, len(member.positions), after, () if branch.place == place else through
                )
            )
        return GroupExplanation(group.id, group.name, group.size, group.channels, group.exact, tuple(companions))


def _key(reason: Reason) -> tuple[str, int | str]:
    """Return what makes two reasons the same: kind and node, or what the text names."""
    return reason.kind, reason.node.index if reason.node else reason.text


def _from(reason: Reason, slices: int, others: dict[str, int], chain: tuple[Hop, ...]) -> Cause:
    node, op = (reason.node.label, reason.node.op_type) if reason.node else ("", "")
    return Cause(reason.kind, reason.text, node, op, slices, others, chain)


def _hops(way: list[Place | Node | None]) -> tuple[Hop, ...]:
    """Keep where the way starts, and the nodes on it; a tensor is named only where no node says as much."""
    hops: list[Hop] = []
    for at, step in enumerate(way):
        if isinstance(step, Node):
            hops.append(Hop(step.label, step.op_type))
        elif step is None:
            hops.append(Hop(""))
        elif at == 0 or at == len(way) - 1 or way[at + 1] is None:
            hops.append(Hop(step[0], axis=step[1]))
    return tuple(hops)
