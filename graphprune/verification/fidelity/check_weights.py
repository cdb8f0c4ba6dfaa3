# SPDX-License-Identifier: Apache-2.0
"""Fidelity of what learns: a model differs from another in weights and biases, and in nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from graphprune.errors import VerificationError, quote
from graphprune.model.files.messages import differing
from graphprune.model.normalize import inline_functions
from graphprune.model.tensors import DATA_FIELDS, FLOATS

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto, NodeProto

__all__ = ["check_only_weights_differ", "check_same_but_weights"]

_BIASED = frozenset(("Conv", "ConvTranspose", "Gemm"))


def check_same_but_weights(
    before: ModelProto, after: ModelProto, may_change: Callable[[TensorProto], bool], biases: dict[str, str]
) -> None:
    """Compare two models field by field.

    Parameters
    ----------
    before, after : ModelProto
        Local functions inlined.
    may_change : callable
        Says of a stored tensor of `before` whether its values may be others; its type and shape may not.
    biases : dict of str to str
        The new tensor of every node that has got one as its bias, by the node's first output, in the order in which
        they are stored behind all others.

    Raises
    ------
    VerificationError
        If anything else differs; it names the first difference.

    Complexity: O(bytes of the models).
    """
    fields = differing(before, after, "graph", "metadata_props")
    fields += differing(before.graph, after.graph, "node", "initializer")
    if fields:
        _fail(f"the field {fields[0]}")
    old, new = before.graph.initializer, after.graph.initializer
    if [tensor.name for tensor in new] != [*(tensor.name for tensor in old), *biases.values()]:
        _fail("names or order of the initializers")
    for one, two in zip(old, new, strict=False):
        if differing(one, two, *(DATA_FIELDS if may_change(one) else ())):
            _fail(f"the initializer {quote(one.name)}")
    if len(before.graph.node) != len(after.graph.node):
        _fail("the number of nodes")
    for first, second in zip(before.graph.node, after.graph.node, strict=True):
        if first != second and not _is_reweighted(first, second, may_change) and not _is_biased(first, second, biases):
            _fail(f"the node {quote(first.name or first.output[0])}")


def check_only_weights_differ(made: ModelProto, file: ModelProto) -> None:
    """Compare what a surgery makes with a file whose weights may have learned since.

    Raises
    ------
    VerificationError
        If anything but floating-point weights and new biases differs.
    """
    before, after = inline_functions(made), inline_functions(file)
    check_same_but_weights(before, after, _is_float, _new_biases(before, after))


def _is_float(tensor: TensorProto) -> bool:
    """Whether a tensor may hold weights that learn."""
    return tensor.data_type in FLOATS


def _new_biases(before: ModelProto, after: ModelProto) -> dict[str, str]:
    """Return which nodes have got a bias of their own, as :func:`check_same_but_weights` takes it."""
    stored = {tensor.name for tensor in before.graph.initializer}
    added = [tensor.name for tensor in after.graph.initializer if tensor.name not in stored]
    readers = {
        node.input[2]: node.output[0]
        for node in after.graph.node
        if node.op_type in _BIASED and len(node.input) == 3 and node.input[2] in added
    }
    return {readers[name]: name for name in added if name in readers}


def _is_reweighted(first: NodeProto, second: NodeProto, may_change: Callable[[TensorProto], bool]) -> bool:
    """Whether a `Constant` has other values and nothing else."""
    if first.op_type != "Constant" or differing(first, second, "attribute"):
        return False
    if not len(first.attribute) == len(second.attribute) == 1:
        return False
    one, two = first.attribute[0], second.attribute[0]
    tensor = TensorProto(name=first.output[0], data_type=one.t.data_type)
    return not differing(one, two, "t") and may_change(tensor) and not differing(one.t, two.t, *DATA_FIELDS)


def _is_biased(first: NodeProto, second: NodeProto, biases: dict[str, str]) -> bool:
    """Whether a node has a new bias and nothing else."""
    if first.output[0] not in biases or differing(first, second, "input"):
        return False
    same = list(first.input[:2]) == list(second.input[:2])
    return same and len(second.input) == 3 and second.input[2] == biases[first.output[0]]


def _fail(what: str) -> None:
    raise VerificationError(f"more than weights differs: {what}")
