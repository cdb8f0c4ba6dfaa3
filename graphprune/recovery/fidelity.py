# SPDX-License-Identifier: Apache-2.0
"""Fidelity: a recovered model differs from the pruned one in the weights that were recovered, and in nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.errors import VerificationError, quote
from graphprune.model.messages import differing
from graphprune.model.normalize import inline_functions
from graphprune.model.tensors import DATA_FIELDS

if TYPE_CHECKING:
    from onnx import NodeProto

    from graphprune.model.load import Model
    from graphprune.recovery.draft import Draft

__all__ = ["check_recovered"]


def check_recovered(pruned: Model, recovered: Model, draft: Draft) -> None:
    """Compare a recovered model with the pruned one, field by field.

    Parameters
    ----------
    pruned, recovered : Model
    draft : Draft
        Says which tensors have new values, and which nodes a new bias.

    Raises
    ------
    VerificationError
        If anything else differs.

    Complexity: O(bytes of the model).
    """
    before, after = inline_functions(pruned.proto), recovered.proto
    fields = differing(before, after, "graph") + differing(before.graph, after.graph, "node", "initializer")
    if fields:
        _fail(f"the field {fields[0]}")
    added = set(draft.biased.values())
    old, new = before.graph.initializer, after.graph.initializer
    if [tensor.name for tensor in new] != [*(tensor.name for tensor in old), *draft.biased.values()]:
        _fail("names or order of the initializers")
    for one, two in zip(old, new, strict=False):
        if differing(one, two, *(DATA_FIELDS if one.name in draft.written else ())):
            _fail(f"the initializer {quote(one.name)}")
    if len(before.graph.node) != len(after.graph.node):
        _fail("the number of nodes")
    for first, second in zip(before.graph.node, after.graph.node, strict=True):
        _check_node(first, second, draft, added)


def _check_node(first: NodeProto, second: NodeProto, draft: Draft, added: set[str]) -> None:
    """Raise unless a node is what it was, but for a new bias or the new values of a constant."""
    if first == second:
        return
    name = quote(first.name or first.output[0])
    if first.op_type == "Constant" and first.output[0] in draft.written:
        if not differing(first, second, "attribute") and len(first.attribute) == len(second.attribute) == 1:
            one, two = first.attribute[0], second.attribute[0]
            if not differing(one, two, "t") and not differing(one.t, two.t, *DATA_FIELDS):
                return
    elif first.output[0] in draft.biased:
        fits = not differing(first, second, "input") and list(first.input[:2]) == list(second.input[:2])
        if fits and len(second.input) == 3 and second.input[2] in added:
            return
    _fail(f"the node {name}")


def _fail(what: str) -> None:
    raise VerificationError(f"recovery changed {what}, which it must not", hint="this is a fault of graphprune")
