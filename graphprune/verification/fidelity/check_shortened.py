# SPDX-License-Identifier: Apache-2.0
"""The shortened graph is the whole graph without some nodes, with small constants in their place, and nothing else.

Whether the constants have the right values shows in the comparison with the masked original, which is not shortened.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from onnx import ModelProto

from graphprune.errors import VerificationError, quote
from graphprune.model.files.inline_tensors import from_nodes
from graphprune.model.files.messages import differing
from graphprune.model.values.bodies import flatten
from graphprune.plan.schema import digest
from graphprune.rewrites.shorten import EMPTIED
from graphprune.rewrites.vanish import MEETS
from graphprune.surgery.marks import PLAN, put_marks
from graphprune.verification.fidelity.check_fidelity import check_fidelity

if TYPE_CHECKING:
    from onnx import NodeProto

    from graphprune.analysis.analysis import Analysis
    from graphprune.plan.schema import GroupPlan, Plan
    from graphprune.rewrites.reference import Reference

__all__ = ["check_shortened"]


def check_shortened(reference: Reference, plan: Plan) -> None:
    """Compare the graph without emptied groups with the reweighted original, and the shortened graph with that.

    Raises
    ------
    VerificationError
        If anything differs but what emptied groups explain.
    """
    if reference.shortened is None:
        return
    whole, cut = reference.reweighted, reference.shortened.cut
    emptied = replace(plan, groups=tuple(_whole_or_empty(group) for group in plan.groups))
    marked = ModelProto()
    marked.CopyFrom(cut)
    put_marks(marked, {PLAN: digest(emptied)})
    check_fidelity(whole, marked, emptied)
    if not whole.flat.is_flat:
        cut = flatten(cut, like=whole.flat).proto
    _check_against(whole, cut, reference.shortened.analysis.graph.proto, plan)


def _whole_or_empty(group: GroupPlan) -> GroupPlan:
    """Return a group that loses nothing, or all as the plan says."""
    if not group.kept:
        return group
    members = tuple(replace(member, removed=()) for member in group.members)
    return replace(group, kept=tuple(range(group.size)), members=members)


def _check_against(whole: Analysis, before: ModelProto, after: ModelProto, plan: Plan) -> None:
    fields = differing(before, after, "graph")
    fields += differing(before.graph, after.graph, "node", "initializer", "input", "value_info")
    if fields:
        _fail(f"the field {fields[0]}")
    nodes = list(after.graph.node)
    given = {tensor.name: tensor for tensor in before.graph.initializer}
    made = {name for node in before.graph.node for name in node.output}
    new = {tensor.name for tensor in after.graph.initializer} - set(given)
    while (constant := from_nodes(nodes[:2])) is not None and constant[0].name not in made:
        new.add(constant[0].name)
        nodes = nodes[constant[1] :]
    if any(EMPTIED not in name for name in new):
        _fail(f"the tensor {quote(min(new))}")
    for tensor in after.graph.initializer:
        if tensor.name in given and tensor != given[tensor.name]:
            _fail(f"the tensor {quote(tensor.name)}")
    _check_nodes((whole, list(before.graph.node)), nodes, new, _partners(whole, plan))


def _partners(whole: Analysis, plan: Plan) -> set[str]:
    """Return the values that an emptied group reaches: only their readers may differ."""
    atoms = np.zeros(len(whole.grouping.group_of) + 1, dtype=np.bool_)
    for start, group in zip(whole.grouping.starts, plan.groups, strict=False):
        if not group.kept:
            atoms[int(start) : int(start) + group.size] = True
    reached: set[str] = set()
    for name, axes in whole.scope.values.items():
        if any(atoms[whole.grouping.atom_of[labels.base]].any() for labels in axes if labels.live):
            reached.add(name)
    for node in whole.graph.nodes:
        if reached.intersection(node.inputs):
            reached.update(node.outputs)
    return reached


def _check_nodes(
    before: tuple[Analysis, list[NodeProto]], nodes: list[NodeProto], new: set[str], partners: set[str]
) -> None:
    """Compare the nodes that are left, in order."""
    whole, originals = before
    places = {tuple(proto.output): at for at, proto in enumerate(originals)}
    last = -1
    for proto in nodes:
        at = places.get(tuple(proto.output), -1)
        if at <= last:
            _fail(f"the node {quote(proto.name or next(iter(proto.output), ''))} is new or in another place")
        last = at
        if differing(originals[at], proto, "input"):
            _fail(f"the node {quote(proto.name or proto.output[0])}")
        _check_inputs(whole, originals[at], proto, new, partners)


def _check_inputs(whole: Analysis, before: NodeProto, proto: NodeProto, new: set[str], partners: set[str]) -> None:
    """Compare what one node reads."""
    names, label = list(proto.input), quote(proto.name or proto.output[0])
    if proto.op_type == "Concat" and len(names) < len(before.input):
        rest = iter(before.input)
        if not all(name in rest for name in names) or not set(before.input) - set(names) <= partners:
            _fail(f"the inputs of the node {label}")
        return
    if len(names) != len(before.input):
        _fail(f"the inputs of the node {label}")
    for old, name in zip(before.input, names, strict=True):
        if name == old:
            continue
        constant = name in new and proto.op_type in MEETS and old in partners
        if not constant and not (old in partners and _is_behind(whole, old, name)):
            _fail(f"an input of the node {label}")


def _is_behind(whole: Analysis, old: str, name: str) -> bool:
    """Whether a value is another one plus something, once or several times."""
    pending = [old]
    while pending:
        node = whole.graph.producer.get(pending.pop())
        if node is not None and node.op_type in ("Add", "Sub"):
            if name in node.inputs:
                return True
            pending.extend(node.inputs)
    return False


def _fail(text: str) -> NoReturn:
    raise VerificationError(
        f"the shortened graph differs from the whole one where no emptied group explains it: {text}",
        hint="nothing was written; this is a fault of graphprune, please report it",
    )
