# SPDX-License-Identifier: Apache-2.0
"""Branches: extra inputs force control flow into the bodies in which something is removed, so that each is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.labels.adapt import whole
from graphprune.labels.vector import Labels
from graphprune.model.sizes.unreached import unreached_bodies
from graphprune.model.values.bodies import DOMAIN, flatten, owner_name
from graphprune.model.values.iterations import loops

__all__ = [
    "BranchPath",
    "force_branches",
    "force_inputs",
    "pruned_branches",
    "shared_slots",
    "switches",
    "taken_together",
]

BranchPath = dict[str, bool]
"""Which branch is taken, by the first output of an `If`; that it runs, by that of a `Loop`."""

_ONE = "graphprune.one"


def force_branches(model: ModelProto, slots: Mapping[str, str]) -> ModelProto:
    """Let extra boolean inputs (`force_inputs`) decide which branch of some `If`s runs, so that each can be compared.

    The first of the two inputs of a `Loop` makes it take at least one iteration. Without them the conditions of the
    model decide, as before.

    Parameters
    ----------
    slots : mapping of str to str
        Which inputs decide, by the first output of the node (:func:`shared_slots`).
    """
    if not slots:
        return model
    flat = flatten(model)
    nodes: list[NodeProto] = []
    for node in flat.proto.graph.node:
        owner = owner_name(node.output) if node.domain == DOMAIN else ""
        if owner in slots:
            steer = _steer_loop if node.op_type == "Loop" else _steer_if
            nodes.extend(steer(node, f"graphprune.branch.{owner}", force_inputs(slots[owner])))
        nodes.append(NodeProto.FromString(node.SerializeToString()))
    steered = ModelProto()
    steered.CopyFrom(flat.proto)
    steered.graph.ClearField("node")
    steered.graph.node.extend(nodes)
    steered.graph.initializer.append(numpy_helper.from_array(np.asarray(1, dtype=np.int64), _ONE))
    result = flat.restore(steered)
    for name in sorted({name for slot in slots.values() for name in force_inputs(slot)}):
        result.graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))
    return result


def _steer_if(node: NodeProto, own: str, inputs: tuple[str, str]) -> list[NodeProto]:
    """Let the forcing inputs decide for one branch; returns the nodes that are needed in front."""
    to_then, to_else = inputs
    condition, node.input[0] = node.input[0], f"{own}.steered"
    return [
        helper.make_node("Not", [to_else], [f"{own}.not"]),
        helper.make_node("And", [condition, f"{own}.not"], [f"{own}.free"]),
        helper.make_node("Or", [f"{own}.free", to_then], [f"{own}.steered"]),
    ]


def _steer_loop(node: NodeProto, own: str, inputs: tuple[str, str]) -> list[NodeProto]:
    """Let the first forcing input make a loop run once; returns the nodes that are needed in front."""
    forced, _ = inputs
    given = next(attribute.i for attribute in node.attribute if attribute.name == "given")
    nodes: list[NodeProto] = []
    if given > 0 and node.input[0]:
        nodes.extend(_at_least_one(node.input[0], own, forced))
        node.input[0] = f"{own}.limit"
    if given > 1 and node.input[1]:
        nodes.append(helper.make_node("Or", [node.input[1], forced], [f"{own}.begins"]))
        node.input[1] = f"{own}.begins"
    return nodes


def _at_least_one(limit: str, own: str, forced: str) -> list[NodeProto]:
    """Return nodes that add to a number what it lacks of one where that is forced, of the oldest operator sets."""
    return [
        helper.make_node("Cast", [limit], [f"{own}.real"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [_ONE], [f"{own}.real_one"], to=TensorProto.FLOAT),
        helper.make_node("Less", [f"{own}.real", f"{own}.real_one"], [f"{own}.none"]),
        helper.make_node("And", [f"{own}.none", forced], [f"{own}.one"]),
        helper.make_node("Cast", [f"{own}.one"], [f"{own}.times"], to=TensorProto.INT64),
        helper.make_node("Sub", [_ONE, limit], [f"{own}.lack"]),
        helper.make_node("Mul", [f"{own}.times", f"{own}.lack"], [f"{own}.more"]),
        helper.make_node("Add", [limit, f"{own}.more"], [f"{own}.limit"]),
    ]


def force_inputs(slot: str) -> tuple[str, str]:
    """Return the names of the inputs that force an `If` to its then or else branch.

    The first one forces a `Loop` into its first iteration.
    """
    return f"graphprune.then.{slot}", f"graphprune.else.{slot}"


def pruned_branches(analysis: Analysis, mask: Callable[[Labels], Mask]) -> list[BranchPath]:
    """Return the ways into all bodies in which something is removed.

    A way says which branch to take at each `If`, and that a `Loop` runs where that is not certain. None leads where
    inputs of this size do not reach (`model.unreached`): channels only pass there.
    """
    certain = {
        owner_name(loop.exit.outputs)
        for loop in loops(analysis.graph)
        if loop.exit.op_type == "Scan" or loop.iterations(analysis.graph, analysis.shapes)
    }
    home = analysis.flat.home
    values = {name: axes for name, axes in analysis.scope.values.items() if name in home}
    touched = {home[name] for name, axes in values.items() if not all(whole(mask(labels)) for labels in axes)}
    ways: dict[frozenset[tuple[str, bool]], None] = {}
    passed: set[frozenset[tuple[str, bool]]] = set()
    for number in sorted(touched - unreached_bodies(analysis.flat, analysis.graph, analysis.shapes)):
        inwards: list[tuple[str, bool]] = []
        place = number
        while place:
            body = analysis.flat.bodies[place - 1]
            if body.owner not in certain:
                inwards.insert(0, (body.owner, body.attribute.name in ("then_branch", "body")))
            place = analysis.flat.around(place)
        ways[frozenset(inwards)] = None
        passed.update(frozenset(inwards[:depth]) for depth in range(len(inwards)))
    return [dict(sorted(way)) for way in ways if way not in passed]


def taken_together(paths: Iterable[BranchPath]) -> list[list[BranchPath]]:
    """Put ways together that can be taken at once, since they agree wherever both of them choose."""
    merged: list[tuple[BranchPath, list[BranchPath]]] = []
    for path in paths:
        agree = (pair for pair in merged if all(pair[0].get(owner, value) == value for owner, value in path.items()))
        pair = next(agree, None)
        if pair is None:
            pair = {}, []
            merged.append(pair)
        pair[0].update(path)
        pair[1].append(path)
    return [group for _, group in merged]


def shared_slots(analysis: Analysis, paths: Iterable[BranchPath]) -> dict[str, str]:
    """Return under which name the nodes of some ways are forced, by their first outputs.

    Nodes in different branches of one `If` never run together and share their names, number by number and level by
    level: each input is handed down through all bodies at every run, and a tree of branches has many of them.
    """
    flat = analysis.flat
    places = {body.owner: number for number, body in enumerate(flat.bodies, start=1)}
    inside: dict[int, int] = {}
    slots: dict[str, str] = {}

    def slot(owner: str) -> str:
        if owner not in slots:
            around = flat.around(places[owner])
            above = f"{slot(flat.bodies[around - 1].owner)}." if around else ""
            inside[around] = inside.get(around, 0) + 1
            slots[owner] = f"{above}{inside[around]}"
        return slots[owner]

    wanted = {owner for path in paths for owner in path}
    return {owner: slot(owner) for owner in sorted(wanted)}


def switches(path: BranchPath, slots: Mapping[str, str]) -> list[str]:
    """Return the forcing inputs that are true where one way is taken."""
    return [force_inputs(slots[owner])[0 if value else 1] for owner, value in path.items()]
