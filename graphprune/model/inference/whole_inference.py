# SPDX-License-Identifier: Apache-2.0
"""Shape inference of a whole graph by onnx, which ends the process where a Slice is to cut a negative size.

A window that is larger than what it slides over gets a negative size, and so does an axis that is padded by negative
amounts. onnx hands such sizes on, and its rule for Slice asserts that there are none. So Slices behind windows that may
be too large are left out until the windows' sizes are known not to be negative.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from onnx import (
    AttributeProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    checker,
    defs,
    numpy_helper,
    shape_inference,
)

from graphprune.errors import clipped, quote
from graphprune.model.inference.long_lists import nodes_with_long_lists

__all__ = ["INFERENCE_ERRORS", "infer_whole", "is_negative", "without"]

INFERENCE_ERRORS: Final = (
    *(checker.ValidationError, defs.SchemaError, shape_inference.InferenceError),
    *(KeyError, RuntimeError, TypeError, ValueError),
)
"""What onnx raises where it cannot infer: its own exceptions share no base."""

_LEFT_OUT: Final = "graphprune.left_out"
_WINDOWS: Final = frozenset({"AveragePool", "Conv", "ConvInteger", "DeformConv", "LpPool", "MaxPool", "QLinearConv"})
_ANYTHING: Final = frozenset({"Col2Im", "MaxUnpool"})
_ROUNDS: Final = 3
"""How often the length of lists is looked for anew behind lists whose length has been found."""
_WEIGHT_SLOT: Final = {"QLinearConv": 3}


def infer_whole(bare: ModelProto) -> tuple[ModelProto, str]:
    """Return a graph with the shapes of its values as far as inference gets, and what it objects to.

    Parameters
    ----------
    bare : ModelProto
        Its nodes in topological order; large weights are inputs.

    Complexity: O(nodes) for each window behind a Slice behind a window ... that may be too large, and mostly once.
    """
    bare = without(bare, _readers_of_long_lists(bare))
    bare = without(bare, _slices_of_doubtful_sizes(bare))
    refusal = ""
    try:
        whole = shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
        return whole, _impossible_size(whole)
    except shape_inference.InferenceError as error:
        refusal = _objection(str(error))
    except INFERENCE_ERRORS:
        pass
    return _leniently(bare), refusal


def _impossible_size(whole: ModelProto) -> str:
    """Return an objection to a negative size, which inference itself has none to."""
    types = {value.name: value.type for value in (*whole.graph.value_info, *whole.graph.output)}
    for node in whole.graph.node:
        for name in node.output:
            if name in types and is_negative(types[name]):
                dims = [dim.dim_value for dim in types[name].tensor_type.shape.dim]
                return f"{node.op_type}({quote(node.name)}): its result {quote(name)} would have the shape {dims}"
    return ""


def _leniently(bare: ModelProto, *, data: bool = True) -> ModelProto:
    try:
        return shape_inference.infer_shapes(bare, data_prop=data)
    except INFERENCE_ERRORS:
        return bare  # the node-by-node pass finds out how far it gets


def _objection(said: str) -> str:
    """Return the first objection of inference, without the frame around it."""
    text = said.partition("Inference error(s): ")[2] or said
    return clipped(re.sub(r"\[\w+Error\] ", "", text.partition("\n")[0]))


def _slices_of_doubtful_sizes(bare: ModelProto) -> frozenset[int]:
    """Return the indices of Slices behind windows of which it is not known that they fit."""
    if not any(node.op_type == "Slice" for node in bare.graph.node):
        return frozenset()
    doubtful = _doubtful_windows(bare)
    while blocked := _slices_behind(bare, doubtful):
        partly = _leniently(without(bare, blocked))
        types = {value.name: value.type for value in (*partly.graph.value_info, *partly.graph.output)}
        settled = {index for index in doubtful if _is_fine(bare.graph.node[index].output, types)}
        if not settled:
            return blocked
        doubtful -= settled
    return frozenset()


def _doubtful_windows(bare: ModelProto) -> set[int]:
    stored = _Stored(bare)
    return {index for index, node in enumerate(bare.graph.node) if _may_not_fit(node, stored)}


def _slices_behind(bare: ModelProto, windows: Collection[int]) -> frozenset[int]:
    found, behind = [], set[str]()
    for index, node in enumerate(bare.graph.node):
        if index in windows or not behind.isdisjoint(node.input):
            behind.update(filter(None, node.output))
            if node.op_type == "Slice" and not node.domain:
                found.append(index)
    return frozenset(found)


def _readers_of_long_lists(bare: ModelProto) -> frozenset[int]:
    """Return the indices of nodes that read or make lists too long for onnx to hand on.

    Where bounds alone leave that open, inference of everything else tells how long some lists are.
    """
    slices = _slices_behind(bare, _doubtful_windows(bare))
    long = nodes_with_long_lists(bare, _leniently(without(bare, slices), data=False))
    for _ in range(_ROUNDS):
        if not long:
            break  # as nearly always
        before = long | _slices_of_doubtful_sizes(without(bare, long))
        long = nodes_with_long_lists(bare, _leniently(without(bare, before)), before)
    return long


def without(bare: ModelProto, nodes: Collection[int]) -> ModelProto:
    """Return a graph in which inference passes over some nodes."""
    if not nodes:
        return bare
    result = ModelProto()
    result.CopyFrom(bare)
    result.opset_import.add(domain=_LEFT_OUT, version=1)
    for index in nodes:
        result.graph.node[index].domain = _LEFT_OUT
    return result


def is_negative(type_proto: TypeProto) -> bool:
    """Whether a type has a negative size."""
    return any(dim.dim_value < 0 for dim in type_proto.tensor_type.shape.dim)


def _is_fine(names: Iterable[str], types: Mapping[str, TypeProto]) -> bool:
    """Whether the shape of the first value is known, and has no negative size."""
    kind = types.get(next(iter(names), ""))
    return kind is not None and kind.tensor_type.HasField("shape") and not is_negative(kind)


class _Stored:
    """What is stored: the shapes of weights, and integers."""

    def __init__(self, bare: ModelProto) -> None:
        tensors = {tensor.name: tensor for tensor in bare.graph.initializer}
        for node in bare.graph.node:
            if node.op_type == "Constant" and not node.domain:
                tensors.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
        self._tensors = tensors
        self._shapes = {value.name: value.type.tensor_type.shape.dim for value in bare.graph.input}

    def window(self, node: NodeProto) -> list[int] | None:
        """Return how far a convolution reaches along each axis, None where its weight is not stored."""
        slot = _WEIGHT_SLOT.get(node.op_type, 1)
        name = node.input[slot] if len(node.input) > slot else ""
        if name in self._shapes:
            return [dim.dim_value for dim in self._shapes[name][2:]]
        return list(self._tensors[name].dims[2:]) if name in self._tensors else None

    def integers(self, name: str) -> list[int] | None:
        """Return the values of a tensor of integers, None where it is none."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type not in (TensorProto.INT32, TensorProto.INT64):
            return None
        return [int(value) for value in numpy_helper.to_array(tensor).ravel()]


def _may_not_fit(node: NodeProto, stored: _Stored) -> bool:
    """Whether a node may make a negative size of sizes that are none."""
    if node.domain or node.op_type in _ANYTHING:
        return not node.domain
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Pad":
        amounts = stored.integers(node.input[1]) if len(node.input) > 1 else _ints(attributes, "pads")
        return amounts is None or min(amounts, default=0) < 0
    if node.op_type not in _WINDOWS and node.op_type != "ConvTranspose":
        return False
    sizes = _ints(attributes, "kernel_shape") or stored.window(node)
    if sizes is None or "output_shape" in attributes:
        return True
    if "auto_pad" in attributes and attributes["auto_pad"].s.startswith(b"SAME"):
        return False
    return _reaches_out(node, sizes, attributes)


def _reaches_out(node: NodeProto, sizes: list[int], attributes: Mapping[str, AttributeProto]) -> bool:
    axes = len(sizes)
    pads = _ints(attributes, "pads") or [0] * (2 * axes)
    dilations = _ints(attributes, "dilations") or [1] * axes
    strides = _ints(attributes, "strides") or [1] * axes
    added = _ints(attributes, "output_padding") or [0] * axes
    if len(pads) != 2 * axes or not len(dilations) == len(strides) == len(added) == axes:
        return True
    for axis, size in enumerate(sizes):
        beyond = dilations[axis] * (size - 1) + 1 - pads[axis] - pads[axes + axis]
        transposed = node.op_type == "ConvTranspose" and beyond + added[axis] < strides[axis]
        if transposed or (node.op_type != "ConvTranspose" and beyond > 1):
            return True
    return False


def _ints(attributes: Mapping[str, AttributeProto], name: str) -> list[int]:
    return list(attributes[name].ints) if name in attributes else []
