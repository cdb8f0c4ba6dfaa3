# SPDX-License-Identifier: Apache-2.0
"""The label pass: run every node's rule once, in graph order."""

from __future__ import annotations

from collections.abc import Callable, Collection

from graphprune.errors import quote
from graphprune.labels import rules  # noqa: F401 - importing the package registers the rules
from graphprune.labels.multiply_adds import count_whole
from graphprune.labels.operator import Operator, Scope, UnknownShapeError
from graphprune.labels.registry import is_blind, lookup
from graphprune.labels.space import Reason
from graphprune.labels.vector import stay
from graphprune.model.graph import Graph, Node
from graphprune.model.inference.contributed import BLOCKED, MICROSOFT
from graphprune.model.sizes.settled import settled_layers
from graphprune.model.values.bodies import DOMAIN
from graphprune.model.values.constants import Constants
from graphprune.model.values.shapes import Shapes

__all__ = ["propagate"]


def propagate(
    graph: Graph,
    shapes: Shapes,
    constants: Constants,
    *,
    approximate: bool = False,
    other: Callable[[], Shapes | None] = lambda: None,
    unreached: Collection[int] = (),
    held: Collection[str] = (),
) -> Scope:
    """State all facts about the channels of a graph.

    Parameters
    ----------
    approximate : bool
        Let channels pass through normalisations over the channel axis (the contract *renormalised*).
    other : callable
        Gives the shapes for another size of every open dimension of the inputs; None where there is none.
    unreached : collection of int
        Nodes that are not run for inputs of these sizes: they cost nothing, and what they weigh stays whole.
    held : collection of str
        First outputs of nodes that could not follow the loss of channels: these stay there.

    Returns
    -------
    Scope
        With the label space and the labels of every activation (`values`) and weight (`weights`).

    Complexity: O(nodes + labels); no Python loop per channel.
    """
    scope = Scope(graph, shapes, constants, approximate=approximate, other=other)
    scope.turns[[*unreached, *settled_layers(graph, shapes)]] = 0
    for name in graph.inputs:
        if name in shapes.dims:
            scope.values[name] = tuple(stay(size) for size in shapes.dims[name])
    for node in graph.nodes:
        if not _is_constant(node, shapes):
            _run(scope, node)
    _freeze_held(scope, held)
    _freeze_measured(scope)
    _freeze_boundaries(scope)
    _freeze_uncomputable(scope)
    _freeze_unreached(scope, unreached)
    return scope


def _is_constant(node: Node, shapes: Shapes) -> bool:
    return any(name in shapes.constant for name in node.outputs if name)


def _run(scope: Scope, node: Node) -> None:
    op = Operator(scope, node)
    for slot, name in enumerate(node.outputs):
        # What a rule does not set stays whole, so a rule can forget an output but not free it.
        if name in scope.shapes.dims:
            op.outputs[slot] = tuple(stay(size) for size in op.out_shape(slot))
    function = lookup(node.domain, node.op_type, op.version)
    if node.captured or function is None:
        op.barrier("unknown operator", _unruled(node) if function is None else f"{node.op_type} has a body")
        _freeze_captured(scope, node)
    elif not (_complete(op) or is_blind(function)):
        _stop(op)
    else:
        try:
            function(op)
            _freeze_unread(op)
        except UnknownShapeError:
            _stop(op)
        except (LookupError, TypeError, ValueError):
            # onnxruntime runs some nodes that the standard does not allow: an axis beyond the rank, a scalar bias
            _stop(op, "odd operands", "its operands or attributes are none that the standard allows")
    count_whole(op)
    for slot, axes in op.outputs.items():
        if node.outputs[slot]:
            scope.values[node.outputs[slot]] = axes


def _freeze_unread(op: Operator) -> None:
    """Keep inputs that the rule did not look at: it takes them for sizes or numbers, but they carry channels here."""
    for slot, name in enumerate(op.node.inputs):
        if slot not in op.read and name in op.scope.values:
            op.freeze(op.scope.values[name], op.node.op_type, "reads this axis as numbers for all channels")


def _unruled(node: Node) -> str:
    """Say that an operator has no rule, and where it comes from if onnxruntime has added it to the graph."""
    added = node.domain in (MICROSOFT, BLOCKED)
    return f"{node.op_type} has no rule" + (": if an optimiser made it, prune the model before" if added else "")


def _stop(
    op: Operator, kind: str = "unknown shape", text: str = "the shapes at this node are not known before the model runs"
) -> None:
    """Keep everything that a node reads and makes; what a rule has said of it so far holds nothing more up."""
    for slot, axes in op.outputs.items():
        op.outputs[slot] = tuple(stay(len(vector)) for vector in axes)
    op.barrier(kind, text)


def _complete(op: Operator) -> bool:
    """Whether all shapes that a rule may ask for are known."""
    dims = op.scope.shapes.dims
    first = op.node.outputs[0] if op.node.outputs else ""
    return all(name in dims for name in op.node.inputs if name) and (not first or first in dims)


def _freeze_captured(scope: Scope, node: Node) -> None:
    """Keep what the bodies of a control-flow node read from the surrounding graph."""
    for name in node.captured:
        if name in scope.values:
            for vector in scope.values[name]:
                scope.space.freeze(
                    vector, Reason("captured", node, "is read inside the body of a control-flow operator")
                )


def _freeze_held(scope: Scope, held: Collection[str]) -> None:
    """Keep what reaches the given nodes, and whatever their sizes are computed from."""
    graph, shapes = scope.graph, scope.shapes
    for node in (graph.producer[name] for name in held):
        reason = Reason("open size", node, "has sizes that depend on both the size of the inputs and on channels")
        pending, seen = [*node.inputs, *node.outputs], set[str]()
        while pending:
            name = pending.pop()
            for vector in scope.values.get(name, ()):
                scope.space.freeze(vector, reason)
            maker = graph.producer.get(name)
            if name in shapes.derived and maker is not None and name not in seen:
                pending.extend(maker.inputs)
            seen.add(name)


def _freeze_measured(scope: Scope) -> None:
    """Keep what layers make of which only the shape is read: stored without these channels, it needs no layer."""
    if not scope.shapes.derived:
        return
    measured = _needed(scope.graph, shapes=True) - _needed(scope.graph, shapes=False)
    for node in (cost.node for cost in scope.space.costs if cost.node.index in measured):
        for vector in (vector for name in node.outputs for vector in scope.values.get(name, ())):
            scope.space.freeze(vector, Reason("shape", node, "makes something of which only the shape is read"))


def _needed(graph: Graph, *, shapes: bool) -> set[int]:
    """Return the numbers of the nodes that outputs are computed from, be it from the shape of what a node makes."""
    pending, needed = [*graph.outputs, *graph.captured], set[int]()
    while pending:
        node = graph.producer.get(pending.pop())
        if node is not None and node.index not in needed:
            needed.add(node.index)
            if shapes or node.op_type not in ("Shape", "Size") or node.domain:
                pending.extend((*node.inputs, *node.captured))
    return needed


def _freeze_boundaries(scope: Scope) -> None:
    """Keep graph outputs, and constants that a control-flow body reads or gives or that are graph outputs."""
    for name in scope.graph.outputs:
        for vector in scope.values.get(name, ()):
            scope.space.freeze(vector, Reason("graph output", None, f"reaches the graph output {name!r}"))
    pseudo = [node for node in scope.graph.nodes if node.domain == DOMAIN]
    given = [name for node in pseudo for name in node.inputs[node.attribute("given", 0) :]]
    for name in (*scope.graph.captured, *given, *scope.graph.outputs):
        if name in scope.shapes.constant and name in scope.shapes.dims:
            for vector in scope.weights.get(scope.constants.trace(name).tensor, ()):
                scope.space.freeze(vector, Reason("captured", None, f"the tensor {name!r} is read as it is"))


def _freeze_unreached(scope: Scope, nodes: Collection[int]) -> None:
    """Keep what nodes weigh that nothing can be said of by running them."""
    for use in scope.space.uses:
        if use.node.index in nodes:
            reason = Reason("control flow", use.node, "is weighed in a branch that inputs of this size do not reach")
            for axis in use.axes:
                scope.space.freeze(axis, reason)


def _freeze_uncomputable(scope: Scope) -> None:
    """Keep what is weighed by constants that nobody can look at: surgery would have to slice them."""
    computable: dict[str, bool] = {}
    for use in scope.space.uses:
        if not any(axis.live for axis in use.axes):
            continue
        root = scope.constants.trace(use.tensor).tensor
        quantised = scope.quantised.get(root)
        needed = (root, *((quantised.scale, quantised.zero_point) if quantised is not None else ()))
        for name in filter(None, needed):
            if name not in computable:
                computable[name] = scope.constants.computable(name)
            if not computable[name]:
                maker = scope.graph.producer.get(name, use.node)
                text = f"the constant {quote(name)}, made by {maker.op_type}, cannot be computed"
                for axis in use.axes:
                    scope.space.freeze(axis, Reason("uncomputable constant", maker, text))
