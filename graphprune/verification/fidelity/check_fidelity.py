# SPDX-License-Identifier: Apache-2.0
"""Fidelity: a pruned model differs from its original in what the plan explains, and in nothing else.

Checked field by field before anything is written, from the plan alone and without the code
that did the surgery. What may differ is listed in `surgery`; everything else, unknown fields
included, must be equal bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TensorShapeProto,
    TypeProto,
    ValueInfoProto,
)

from graphprune.analysis.analysis import Analysis
from graphprune.errors import VerificationError, quote
from graphprune.labels.adapt import size_attributes, size_slots, whole
from graphprune.model.files.inline_tensors import FREE_INITIALIZERS, from_nodes
from graphprune.model.files.messages import differing
from graphprune.model.graph import Graph, Node
from graphprune.model.load import Model
from graphprune.model.values.bodies import flatten
from graphprune.plan.check import group_plan
from graphprune.plan.schema import Plan, digest
from graphprune.surgery.marks import MARKS, PLAN
from graphprune.verification.fidelity.check_tensors import TensorCheck
from graphprune.verification.fidelity.expectation import Demands, Expectation, Masks, find_demands

__all__ = ["check_fidelity"]

_SPLICE_NAME = re.compile(r"\.spliced(\.\d+)?$")
_SPLICES = {"Mul": 0, "Div": 0, "Where": 2}
"""Operators that let sizes follow, and at which input the sizes stand that they change."""

_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_NEW_NAME = re.compile(r"\.(pruned\d*|held|kept_share)(\.\d+)?$")


def check_fidelity(analysis: Analysis, pruned: Model | ModelProto, plan: Plan) -> None:
    """Compare a pruned model with the original, field by field.

    Parameters
    ----------
    analysis : Analysis
        Of the original. With local functions, their inlined form is what counts.
    pruned : Model or ModelProto
        A message may refer to the external data of the original.
    plan : Plan
        What was removed.

    Raises
    ------
    VerificationError
        If anything differs that the plan does not explain.

    Complexity: O(bytes of the model); weights that did not change are compared in place.
    """
    model = pruned if isinstance(pruned, Model) else analysis.model.replaced(pruned)
    if not analysis.flat.is_flat:
        # Both are compared with their branches laid out, so that one comparison serves all of the graph.
        model = model.replaced(flatten(model.proto, like=analysis.flat).proto)
    _check_model(analysis.graph.proto, model.proto, digest(plan))
    expectation = Expectation(analysis, _listed(analysis, plan))
    nodes = _Nodes(expectation, model.proto)
    nodes.match()
    demands = find_demands(expectation, {node.index: nodes.inputs(proto) for node, proto in nodes.pairs})
    TensorCheck(expectation, model.tensors, demands).run(nodes.stored, nodes.added, nodes.shares)
    _check_values(analysis.graph.proto.graph, model.proto.graph, expectation, demands)


def _listed(analysis: Analysis, plan: Plan) -> Plan:
    """Return the plan with what it lists for the members of this model: a reweighted original has other biases."""
    listed = [[(member.initializer, member.axis) for member in group.members] for group in plan.groups]
    if listed == [[(member.initializer, member.axis) for member in group.members] for group in analysis.groups]:
        return plan
    groups = (group_plan(group, stored.kept) for stored, group in zip(plan.groups, analysis.groups, strict=True))
    return replace(plan, groups=tuple(groups))


def _fail(text: str) -> NoReturn:
    raise VerificationError(
        f"the pruned model differs from the original where the plan does not: {text}",
        hint="nothing was written; this is a fault of graphprune, please report it",
    )


def _check_model(source: ModelProto, pruned: ModelProto, plan_digest: str) -> None:
    """Compare everything but nodes, tensors and values."""
    before = [entry for entry in source.metadata_props if entry.key not in MARKS]
    after = [entry for entry in pruned.metadata_props if entry.key not in MARKS]
    fields = differing(source, pruned, "graph", "metadata_props")
    fields += ["metadata_props"] * (before != after)
    fields += differing(source.graph, pruned.graph, "node", "initializer", "input", "value_info")
    if fields:
        _fail(f"the field {fields[0]} of the model")
    if any(entry.key == PLAN and entry.value != plan_digest for entry in pruned.metadata_props):
        _fail("it names another plan")


class _Nodes:
    """Compares the nodes, and finds out what is stored and what is new.

    Attributes
    ----------
    pairs : list of (Node, NodeProto)
        The nodes that are still there, as they were and as they are.
    stored, added : dict of str to TensorProto
        Tensors of the pruned graph that the original has under the same name, and new ones.
    shares : dict of str to (float, str)
        New tensors that scale a mean: the factor, and the value that is scaled.
    """

    def __init__(self, expectation: Expectation, proto: ModelProto) -> None:
        self._expectation = expectation
        self._graph: Graph = expectation.analysis.graph
        self._proto = proto
        self._by_outputs = {node.outputs: node for node in self._graph.nodes}
        self._names = set(self._graph.inputs) | set(self._graph.initializers) | set(self._graph.producer)
        self.pairs: list[tuple[Node, NodeProto]] = []
        self.stored: dict[str, TensorProto] = {}
        self.added: dict[str, TensorProto] = {}
        self.shares: dict[str, tuple[float, str]] = {}
        self._splices: dict[str, str] = {}

    def match(self) -> None:
        """Pair the nodes up in order and compare them."""
        self._initializers()
        nodes = list(self._proto.graph.node)
        at, last = self._constants(nodes), -1
        while at < len(nodes):
            proto = nodes[at]
            node = self._by_outputs.get(tuple(proto.output))
            if node is None and (spliced := self._spliced(proto)):
                self._splices[proto.output[0]] = spliced
                at += 1
                continue
            scale = nodes[at + 1] if node is None and at + 1 < len(nodes) else None
            if scale is not None:
                node = self._by_outputs.get((*scale.output, *proto.output[1:]))
            if node is None or node.index <= last:
                where = "is new" if node is None else "stands in another place or twice"
                _fail(f"the node {quote(proto.name or next(iter(proto.output), ''))} {where}")
            self._check_share(node, proto, scale)
            self._compare(node, proto, scaled=scale is not None)
            self.pairs.append((node, proto))
            last, at = node.index, at + (1 if scale is None else 2)
        self._check_connected()

    def _initializers(self) -> None:
        original = list(self._graph.initializers)
        tensors = self._proto.graph.initializer
        kept = [tensor.name for tensor in tensors if tensor.name in self._graph.initializers]
        present = set(kept)
        if kept != [name for name in original if name in present]:
            _fail("the order of the initializers, or one that is there twice")
        for tensor in tensors:
            if tensor.name in self._graph.initializers:
                self.stored[tensor.name] = tensor
            else:
                self._add(tensor)

    def _constants(self, nodes: Sequence[NodeProto]) -> int:
        """Take the new constants that stand in front where initializers are not free; return how many nodes that is."""
        count = 0
        while self._proto.ir_version < FREE_INITIALIZERS:
            constant = from_nodes(nodes[count : count + 2])
            if constant is None or constant[0].name in self._names:
                break
            self._add(constant[0])
            count += constant[1]
        return count

    def _add(self, tensor: TensorProto) -> None:
        if tensor.name in self._names or tensor.name in self.added or not _NEW_NAME.search(tensor.name):
            _fail(f"the tensor {quote(tensor.name)} is new")
        self.added[tensor.name] = tensor

    def inputs(self, proto: NodeProto) -> list[str]:
        """Return the inputs of a node; sizes that are spliced count as what they are spliced into."""
        return [self._splices.get(name, name) for name in proto.input]

    def _spliced(self, proto: NodeProto) -> str:
        """Return the sizes that a new node does nothing to but let some follow the plan; else an empty name."""
        given = ("op_type", "input", "output", "name")
        at = _SPLICES.get(proto.op_type)
        if at is None or len(proto.input) <= at or differing(NodeProto(), proto, *given):
            return ""
        if list(proto.output) != [proto.name] or _SPLICE_NAME.search(proto.name) is None:
            return ""
        others = [name for slot, name in enumerate(proto.input) if slot != at]
        if len(others) != max(at, 1) or not all(name in self.added for name in others):
            return ""
        tensors = [self.added.pop(name) for name in others]
        types = [TensorProto.BOOL] * (len(tensors) - 1)
        fits = [tensor.data_type for tensor in tensors[:-1]] == types and tensors[-1].data_type in _INTEGERS
        sizes = proto.input[at]
        return self._splices.get(sizes, sizes) if fits and tensors[0].dims == tensors[-1].dims else ""

    def _check_share(self, node: Node, proto: NodeProto, scale: NodeProto | None) -> None:
        """Look whether a mean over slices of which some go is scaled, and nothing else."""
        share = self._expectation.shares.get(node.index)
        if share is None and scale is None:
            return
        if share is None or scale is None:
            _fail(f"the node {node!r} {'is' if share is None else 'is not'} scaled")
        given = ("op_type", "input", "output", "name")
        fits = scale.op_type == "Mul" and len(scale.input) == 2 and not differing(NodeProto(), scale, *given)
        fits = fits and scale.input[1] in self.added and _NEW_NAME.search(scale.name) is not None
        if not fits or scale.input[0] != proto.output[0] or not proto.output[0].startswith(f"{node.outputs[0]}.kept"):
            _fail(f"the node {quote(scale.name)} behind {node!r}")
        self.shares[scale.input[1]] = share, node.outputs[0]

    def _compare(self, node: Node, proto: NodeProto, *, scaled: bool) -> None:
        """Compare one node with what it was."""
        if proto == node.proto:
            self._note_constant(node, proto)
            return
        fields = differing(node.proto, proto, "input", "attribute", *(["output"] if scaled else []))
        if fields:
            _fail(f"the field {fields[0]} of the node {node!r}")
        self._compare_inputs(node, proto)
        before = {attribute.name: attribute for attribute in node.proto.attribute}
        after = {attribute.name: attribute for attribute in proto.attribute}
        if len(after) != len(proto.attribute):
            _fail(f"an attribute of the node {node!r} is there twice")
        respelled = tuple(proto.input) != node.inputs
        for name in {**before, **after}:
            old, new = before.get(name), after.get(name)
            if old != new and not self._may_differ(node, old, new, respelled=respelled):
                _fail(f"the attribute {quote(name)} of the node {node!r}")
        self._note_constant(node, proto)

    def _compare_inputs(self, node: Node, proto: NodeProto) -> None:
        """Raise unless inputs are those of the original, or new tensors in place of constants and sizes."""
        touched = self._expectation.touches(node)
        constant = self._expectation.analysis.shapes.constant
        given = [*proto.input, *[""] * (len(node.inputs) - len(proto.input))]
        ends_empty = [bool(names) and not names[-1] for names in (proto.input, node.inputs)]
        if ends_empty[0] != ends_empty[1]:
            _fail(f"the inputs of the node {node!r}")
        for slot, name in enumerate(given):
            old = node.inputs[slot] if slot < len(node.inputs) else ""
            is_size = slot in size_slots(node) and (touched or old in constant)
            if not name and is_size and self._is_zero(old):
                continue  # zeros are what an operator takes for an initial state that it is not given
            if is_size and self._splices.get(name) == old:
                continue
            if name != old and not (name in self.added and (is_size or old in constant)):
                _fail(f"{f'input {slot}' if slot < len(proto.input) else 'the inputs'} of the node {node!r}")

    def _is_zero(self, name: str) -> bool:
        try:
            return not self._expectation.analysis.constants.array(name).any()
        except KeyError:
            return False

    def _may_differ(
        self, node: Node, old: AttributeProto | None, new: AttributeProto | None, *, respelled: bool
    ) -> bool:
        """Whether an attribute is the value of a constant, or a size that follows the plan."""
        name = (old or new or AttributeProto()).name
        if node.op_type == "Constant" and not node.domain and name == "value" and old is not None and new is not None:
            return not differing(old, new, "t")  # the tensor is compared with the other tensors
        if name not in size_attributes(node) or not self._expectation.touches(node):
            return False
        if old is None or new is None:
            # Sizes that were implied are spelled out, or are an input now.
            return respelled if new is None else new.type in (AttributeProto.INTS, AttributeProto.FLOAT)
        if old.type == AttributeProto.INT:
            return not differing(old, new, "i") and 0 < new.i <= old.i
        return not differing(old, new, "ints") and len(new.ints) == len(old.ints)

    def _note_constant(self, node: Node, proto: NodeProto) -> None:
        if node.op_type == "Constant" and not node.domain:
            for attribute in proto.attribute:
                if attribute.name == "value":
                    self.stored[node.outputs[0]] = attribute.t

    def _check_connected(self) -> None:
        """Raise unless all that is read is there, and all that is gone has lost its last reader."""
        graph = self._proto.graph
        made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        made.update(name for node in graph.node for name in node.output)
        read = {name for node in graph.node for name in node.input} | set(self._graph.outputs)
        read.update(name for node, _ in self.pairs for name in node.captured)
        missing = read - made - {""}
        if missing:
            _fail(f"{quote(min(missing))} is gone, but still read")
        unused = set(self.added) - read
        if unused:
            _fail(f"the tensor {quote(min(unused))} is new, and nobody reads it")
        before = {*self._graph.consumers, *self._graph.captured, *self._graph.outputs}
        there = {node.index for node, _ in self.pairs}
        lost = self._graph.initializers.keys() - self.stored.keys()
        gone: dict[str, tuple[str, ...]] = {name: (name,) for name in lost}
        gone.update((node.label, node.outputs) for node in self._graph.nodes if node.index not in there)
        for label, names in gone.items():
            if before.isdisjoint(names):
                _fail(f"{quote(label)} is gone, but had no reader that could have gone")


def _check_values(source: GraphProto, pruned: GraphProto, expectation: Expectation, demands: Demands) -> None:
    """Compare graph inputs and the declared types of other values."""
    initializers = {tensor.name for tensor in source.initializer}
    if [value.name for value in source.input] != [value.name for value in pruned.input]:
        _fail("names or order of the graph inputs")
    for old, new in zip(source.input, pruned.input, strict=True):
        masks = demands.shapes.get(old.name) if old.name in initializers else None
        if new != _declared(old, masks):
            _fail(f"the type of the graph input {quote(old.name)}")
    made = {tensor.name for tensor in pruned.initializer} | {value.name for value in (*pruned.input, *pruned.output)}
    made.update(name for node in pruned.node for name in node.output)
    expected = [old for old in source.value_info if old.name in made]
    if [value.name for value in expected] != [value.name for value in pruned.value_info]:
        _fail("names or order of the declared values")
    shapes = expectation.analysis.shapes
    derived = shapes.derived
    for declared, new in zip(expected, pruned.value_info, strict=True):
        old = _unless_false(declared, shapes.dims.get(declared.name))
        masks = expectation.activation(old.name) or demands.shapes.get(old.name)
        if new != _declared(old, masks) and not (masks is None and old.name in derived and _is_weaker(old, new)):
            _fail(f"the declared type of {quote(old.name)}")


def _unless_false(value: ValueInfoProto, dims: tuple[int, ...] | None) -> ValueInfoProto:
    """Return the declaration of a value, without a shape that is not the one which the value has."""
    if dims is None or not value.type.tensor_type.HasField("shape"):
        return value
    numbers = [dim.dim_value if dim.HasField("dim_value") else None for dim in _dims(value.type)]
    if len(numbers) == len(dims) and all(number in (None, size) for number, size in zip(numbers, dims, strict=True)):
        return value
    result = ValueInfoProto()
    result.CopyFrom(value)
    result.type.tensor_type.ClearField("shape")
    return result


def _declared(value: ValueInfoProto, masks: Masks | None) -> ValueInfoProto:
    """Return the declaration of a value of which only some slices are left."""
    if masks is None or all(whole(mask) for mask in masks) or not value.type.tensor_type.HasField("shape"):
        return value
    result = ValueInfoProto()
    result.CopyFrom(value)
    dims = _dims(result.type)
    if len(dims) != len(masks):
        result.type.tensor_type.ClearField("shape")
        return result
    for dim, mask in zip(dims, masks, strict=True):
        if whole(mask):
            continue
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
            dim.dim_value = int(mask.sum())
        else:
            dim.ClearField("value")  # a symbol would say of two axes that they are equal, which is over
    return result


def _is_weaker(old: ValueInfoProto, new: ValueInfoProto) -> bool:
    """Whether what is declared of a constant computed from shapes differs in its shape: one size fewer, or none."""
    before, after = ValueInfoProto(), ValueInfoProto()
    before.CopyFrom(old)
    after.CopyFrom(new)
    fewer = all(
        dim.dim_value <= full.dim_value for full, dim in zip(_dims(old.type), _dims(new.type), strict=False)
    ) and len(_dims(new.type)) in (0, len(_dims(old.type)))
    for value in (before, after):
        value.type.tensor_type.ClearField("shape")
    return fewer and before == after


def _dims(kind: TypeProto) -> Sequence[TensorShapeProto.Dimension]:
    return kind.tensor_type.shape.dim if kind.WhichOneof("value") == "tensor_type" else ()
