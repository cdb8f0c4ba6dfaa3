# SPDX-License-Identifier: Apache-2.0
"""Surgery: carry out which atoms stay, on the original protobuf message.

The result is the original model in which only these things differ: stored tensors lose slices
(a tensor that its readers need differently gets a copy each), constants that encode sizes follow
(`labels.adapt`), computed constants that would change are stored as values, a mean over pruned
slices is scaled, and nodes that nobody reads any more are gone. The rest is carried over field
by field, unknown fields included.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Array, Mask
from graphprune.errors import UnsupportedModelError, quote
from graphprune.labels.adapt import Edits, adapter_for, size_slots
from graphprune.model.files.inline_tensors import FREE_INITIALIZERS, as_nodes
from graphprune.model.files.messages import copy_but
from graphprune.model.graph import Node
from graphprune.model.unread import remove_unread
from graphprune.surgery.declared_shapes import follow_sizes, is_false
from graphprune.surgery.placement import Placement
from graphprune.surgery.resizing import PrunedNode, Resizing
from graphprune.surgery.slices import Changes, Kept, Slices

__all__ = ["adapt_node", "operate", "prune"]


def prune(analysis: Analysis, keep: Mask, without: Collection[int] = ()) -> ModelProto:
    """Remove atoms from a model.

    Parameters
    ----------
    analysis : Analysis
    keep : ndarray of bool, shape (atoms,)
        Which atoms stay, in the order of `analysis.grouping`.
    without : collection of int
        Nodes that will be removed anyhow, and need not follow.

    Returns
    -------
    ModelProto
        A new message; unchanged external tensors still refer to the original's data files.

    Raises
    ------
    UnsupportedModelError
        If a constant that depends on the size of the inputs would have to be sliced.
    InternalError
        If an operator cannot follow; a rule is wrong then.
    """
    return operate(analysis, Kept(analysis, keep), without)


def operate(analysis: Analysis, slices: Slices, without: Collection[int] = ()) -> ModelProto:
    """Give every axis the slices that it is to have; errors and what is returned are those of :func:`prune`.

    Parameters
    ----------
    slices : Slices
        What becomes of every axis, and what is scaled in return.
    """
    placement = Placement(analysis, slices)
    resizing = Resizing(analysis, slices, placement)
    changes = Changes(slices.suffix)
    for node in analysis.graph.nodes:
        if node.index not in without:
            adapt_node(node, resizing, changes)
    slices.balance(changes)
    for index in without:
        changes.scaled.pop(index, None)
    changes.inputs.update(placement.rewired)
    return analysis.flat.restore(_Writer(analysis, placement, resizing, changes).write())


def adapt_node(node: Node, resizing: Resizing, changes: Changes) -> None:
    """Bring the sizes that a node is given into line, and keep what else it reads of shapes as it was.

    Raises
    ------
    UnsupportedModelError
        If that depends on the size of the model's inputs as well.
    """
    is_constant = all(name in resizing.analysis.shapes.constant for name in node.outputs if name)
    if not is_constant or any(name in resizing.placement.settled for name in node.outputs):
        _adapt(node, resizing, changes)
    if not is_constant:
        _hold(node, resizing, changes)


def _adapt(node: Node, resizing: Resizing, changes: Changes) -> None:
    """Let the operator's adapter bring size attributes and inputs into line."""
    adapt = adapter_for(node)
    if adapt is None or not resizing.touches(node):
        return
    edits = adapt(PrunedNode(resizing, node))
    if edits.attributes:
        changes.attributes[node.index] = edits.attributes
    for slot, value in edits.inputs.items():
        if value is None:
            changes.inputs[node.index, slot] = ""
            continue
        name = resizing.analysis.graph.unused(f"{node.outputs[0]}.{slot}.{changes.suffix}")
        changes.added.append(numpy_helper.from_array(np.asarray(value), name))
        changes.inputs[node.index, slot] = name
    for slot in sorted({*edits.shares, *edits.splices}):
        _splice(node, slot, edits, resizing, changes)


def _splice(node: Node, slot: int, edits: Edits, resizing: Resizing, changes: Changes) -> None:
    """Let elements of a list of sizes that the graph goes on computing keep their share, and replace others."""
    unused, stem, sizes = resizing.analysis.graph.unused, f"{node.outputs[0]}.{slot}", node.inputs[slot]
    steps: list[tuple[str, dict[str, Array]]] = []
    if slot in edits.shares:
        kept, every = edits.shares[slot]
        steps += [("Mul", {"kept": kept}), ("Div", {"every": every})]
    if slot in edits.splices:
        fixed, values = edits.splices[slot]
        steps.append(("Where", {"fixed": fixed, "sizes": values}))
    for op_type, tensors in steps:
        given = {unused(f"{stem}.{part}.{changes.suffix}"): value for part, value in tensors.items()}
        changes.added.extend(numpy_helper.from_array(value, name) for name, value in given.items())
        inputs = [*given, sizes] if op_type == "Where" else [sizes, *given]
        sizes = unused(f"{stem}.{next(iter(tensors))}.spliced")
        changes.before.setdefault(node.index, []).append(helper.make_node(op_type, inputs, [sizes], name=sizes))
    changes.inputs[node.index, slot] = sizes


def _hold(node: Node, resizing: Resizing, changes: Changes) -> None:
    """Keep data computed from shapes as it was: 1/sqrt(d) must not follow d (only sizes may)."""
    analysis, placement = resizing.analysis, resizing.placement
    for slot, name in enumerate(node.inputs):
        reader = node.index, slot
        if name not in analysis.shapes.derived or reader in placement.rewired or reader in changes.inputs:
            continue
        demand = placement.demand(node, slot)
        if name in placement.settled or (slot in size_slots(node) and demand is None):
            continue
        whole = demand is None or demand.whole
        before = analysis.shapes.values.get(name) if whole else resizing.original(name)
        now = resizing.values.get(name) if whole else resizing.value(name)
        if before is None or (now is None and whole):
            continue
        wanted = before if demand is None else demand.cut(before)
        if now is not None and now.shape == wanted.shape and np.array_equal(now, wanted):
            continue
        if resizing.is_dynamic(name):
            raise UnsupportedModelError(
                f"node {node!r} reads {quote(name)}, which depends on both the input size and a pruned width",
                hint="export the model with fixed input sizes",
            )
        held = analysis.graph.unused(f"{name}.{node.index}.{slot}.held")
        changes.added.append(numpy_helper.from_array(np.asarray(wanted), held))
        changes.inputs[reader] = held


class _Writer:
    """Puts the new message together."""

    def __init__(self, analysis: Analysis, placement: Placement, resizing: Resizing, changes: Changes) -> None:
        self.analysis = analysis
        self.placement = placement
        self.resizing = resizing
        self.changes = changes
        self.source = analysis.graph.proto

    def write(self) -> ModelProto:
        """Build the pruned model."""
        result = ModelProto()
        copy_but(self.source, result, "graph")
        graph = result.graph
        copy_but(self.source.graph, graph, "node", "initializer", "input", "value_info")
        nodes = self._nodes()
        new = [*self.placement.copies, *self.changes.added]
        if self.source.ir_version < FREE_INITIALIZERS:
            # Before IR version 4 every initializer must be a graph input, and the inputs are not ours to change.
            opset = self.analysis.graph.opset
            graph.node.extend(node for tensor in new for node in as_nodes(tensor, opset))
            new = []
        graph.node.extend(nodes)
        graph.initializer.extend(self.placement.in_place.get(t.name, t) for t in self.source.graph.initializer)
        graph.initializer.extend(new)
        graph.input.extend(self.source.graph.input)
        graph.value_info.extend(self.source.graph.value_info)
        remove_unread(result, self.source)
        dims = self.analysis.shapes.dims
        for value in graph.value_info:
            if is_false(value, dims.get(value.name)):
                value.type.tensor_type.ClearField("shape")
        for value in (*graph.input, *graph.value_info):
            follow_sizes(value, dims.get(value.name), self.resizing.dims_of(value.name))
        return result

    def _nodes(self) -> list[NodeProto]:
        nodes: list[NodeProto] = []
        for node in self.analysis.graph.nodes:
            proto = node.proto
            slots = self._rewired.get(node.index, {})
            stored = (
                self.placement.in_place.get(node.outputs[0]) if node.op_type == "Constant" and node.outputs else None
            )
            attributes = self.changes.attributes.get(node.index)
            factor = self.changes.scaled.get(node.index)
            if slots or attributes or stored is not None or factor is not None:
                proto = NodeProto()
                proto.CopyFrom(node.proto)
                for slot, name in slots.items():
                    proto.input.extend([""] * (slot + 1 - len(proto.input)))
                    proto.input[slot] = name
                _drop_omitted(proto, node)
                for name, value in (attributes or {}).items():
                    _set_attribute(proto, name, value)
                if stored is not None:
                    next(a for a in proto.attribute if a.name == "value").t.CopyFrom(stored)
            nodes.extend(self.changes.before.get(node.index, ()))
            nodes.append(proto)
            if factor is not None:
                nodes.append(self._factor(proto, factor))
        return nodes

    @cached_property
    def _rewired(self) -> dict[int, dict[int, str]]:
        """By node and input, the names that are read from now on."""
        rewired: dict[int, dict[int, str]] = {}
        for (index, slot), name in self.changes.inputs.items():
            rewired.setdefault(index, {})[slot] = name
        return rewired

    def _factor(self, proto: NodeProto, factor: float) -> NodeProto:
        """Scale the output of a mean; returns the node to insert behind it."""
        name, unused = proto.output[0], self.analysis.graph.unused
        dtype = helper.tensor_dtype_to_np_dtype(self.analysis.shapes.dtypes.get(name, TensorProto.FLOAT))
        constant = numpy_helper.from_array(np.asarray(factor, dtype=dtype), unused(f"{name}.kept_share"))
        self.changes.added.append(constant)
        proto.output[0] = unused(f"{name}.kept")
        inputs, label = [proto.output[0], constant.name], unused(f"{proto.name or name}.kept_share")
        return helper.make_node("Mul", inputs, [name], name=label)


def _drop_omitted(proto: NodeProto, original: Node) -> None:
    """Drop trailing inputs that are left out, unless the original has some: there are runtimes that count inputs."""
    if original.inputs and original.inputs[-1]:
        while proto.input and not proto.input[-1]:
            del proto.input[-1]


def _set_attribute(proto: NodeProto, name: str, value: int | float | list[int] | None) -> None:
    """Set an attribute in place, so that whatever else it says stays; None drops it."""
    at = next((at for at, attribute in enumerate(proto.attribute) if attribute.name == name), None)
    if at is not None and value is None:
        del proto.attribute[at]
    elif at is not None and isinstance(value, list):
        proto.attribute[at].ints[:] = value
    elif at is not None and isinstance(value, int):
        proto.attribute[at].i = value
    elif value is not None:
        proto.attribute.append(helper.make_attribute(name, value))
