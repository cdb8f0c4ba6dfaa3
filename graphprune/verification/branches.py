# SPDX-License-Identifier: Apache-2.0
"""Branches: extra inputs force control flow into the bodies in which something is removed, so that each is compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.labels.adapt import whole
from graphprune.labels.vector import Labels
from graphprune.model.sizes.unreached import unreached_bodies
from graphprune.model.values.bodies import DOMAIN, flatten, owner_name
from graphprune.model.values.iterations import loops

__all__ = ["BranchPath", "force_branches", "pruned_branches", "switches"]

BranchPath = dict[str, bool]
"""Which branch is taken, by the first output of an `If`; that it runs, by that of a `Loop`."""

_ONE = "graphprune.one"


def force_branches(model: ModelProto, paths: list[BranchPath]) -> ModelProto:
    """Let extra boolean inputs (`force_inputs`) decide which branch of some `If`s runs, so that each can be compared.

    The first of the two inputs of a `Loop` makes it take at least one iteration. Without them the conditions of the
    model decide, as before.
    """
    owners = {owner for path in paths for owner in path}
    if not owners:
        return model
    flat = flatten(model)
    nodes: list[NodeProto] = []
    for node in flat.proto.graph.node:
        owner = owner_name(node.output) if node.domain == DOMAIN else ""
        if owner in owners:
            nodes.extend(_steer_loop(node, owner) if node.op_type == "Loop" else _steer_if(node, owner))
        nodes.append(NodeProto.FromString(node.SerializeToString()))
    steered = ModelProto()
    steered.CopyFrom(flat.proto)
    steered.graph.ClearField("node")
    steered.graph.node.extend(nodes)
    steered.graph.initializer.append(numpy_helper.from_array(np.asarray(1, dtype=np.int64), _ONE))
    result = flat.restore(steered)
    for name in sorted(name for owner in owners for name in force_inputs(owner)):
        result.graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, []))
    return result


def _steer_if(node: NodeProto, owner: str) -> list[NodeProto]:
    """Let the forcing inputs decide for one branch; returns the nodes that are needed in front."""
    to_then, to_else = force_inputs(owner)
    free, steered = f"{to_then}.free", f"{to_then}.steered"
    condition, node.input[0] = node.input[0], steered
    return [
        helper.make_node("Not", [to_else], [f"{to_else}.not"]),
        helper.make_node("And", [condition, f"{to_else}.not"], [free]),
        helper.make_node("Or", [free, to_then], [steered]),
    ]


def _steer_loop(node: NodeProto, owner: str) -> list[NodeProto]:
    """Let the first forcing input make a loop run once; returns the nodes that are needed in front."""
    forced, _ = force_inputs(owner)
    given = next(attribute.i for attribute in node.attribute if attribute.name == "given")
    nodes: list[NodeProto] = []
    if given > 0 and node.input[0]:
        nodes.extend(_at_least_one(node.input[0], forced))
        node.input[0] = f"{forced}.limit"
    if given > 1 and node.input[1]:
        nodes.append(helper.make_node("Or", [node.input[1], forced], [f"{forced}.begins"]))
        node.input[1] = f"{forced}.begins"
    return nodes


def _at_least_one(limit: str, forced: str) -> list[NodeProto]:
    """Return nodes that add to a number what it lacks of one where that is forced, of the oldest operator sets."""
    return [
        helper.make_node("Cast", [limit], [f"{forced}.real"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [_ONE], [f"{forced}.real_one"], to=TensorProto.FLOAT),
        helper.make_node("Less", [f"{forced}.real", f"{forced}.real_one"], [f"{forced}.none"]),
        helper.make_node("And", [f"{forced}.none", forced], [f"{forced}.one"]),
        helper.make_node("Cast", [f"{forced}.one"], [f"{forced}.times"], to=TensorProto.INT64),
        helper.make_node("Sub", [_ONE, limit], [f"{forced}.lack"]),
        helper.make_node("Mul", [f"{forced}.times", f"{forced}.lack"], [f"{forced}.more"]),
        helper.make_node("Add", [limit, f"{forced}.more"], [f"{forced}.limit"]),
    ]


def force_inputs(owner: str) -> tuple[str, str]:
    """Return the names of the inputs that force the `If` with this first output to its then or else branch.

    The first one forces a `Loop` into its first iteration.
    """
    return f"graphprune.then.{owner}", f"graphprune.else.{owner}"


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
    paths: list[BranchPath] = []
    home = analysis.flat.home
    values = {name: axes for name, axes in analysis.scope.values.items() if name in home}
    touched = {home[name] for name, axes in values.items() if not all(whole(mask(labels)) for labels in axes)}
    for number in sorted(touched - unreached_bodies(analysis.flat, analysis.graph, analysis.shapes)):
        path: BranchPath = {}
        place = number
        while place:
            body = analysis.flat.bodies[place - 1]
            if body.owner not in certain:
                path[body.owner] = body.attribute.name in ("then_branch", "body")
            place = analysis.flat.around(place)
        if path not in paths:
            paths.append(path)
    return [path for path in paths if not any(path.items() < other.items() for other in paths)]


def switches(path: BranchPath, paths: list[BranchPath]) -> dict[str, bool]:
    """Return the value of every forcing input that leads into one branch."""
    values = {name: False for other in paths for owner in other for name in force_inputs(owner)}
    for owner, value in path.items():
        values[force_inputs(owner)[0 if value else 1]] = True
    return values
