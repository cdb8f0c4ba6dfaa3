# SPDX-License-Identifier: Apache-2.0
"""Integer products whose kernels saturate: copies that are compared get weights with which they do not.

On x86 processors without VNNI the quick kernel for unsigned activations and signed 8-bit weights adds two products in
16 bits, and saturates. Which two are added depends on the channels that are there, so a pruned network and the masked
original saturate differently, by 14 % in one case. With weights and zero points moved by 128 to unsigned numbers the
operators mean the same, and the kernels for these are exact. The file itself stays as it is: its users have
``reduce_range`` of onnxruntime's quantisation for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from graphprune.model.tensors import TensorStore

__all__ = ["with_unsigned_weights"]

_SLOTS = {
    ("", "ConvInteger"): (0, 1, 3),
    ("", "MatMulInteger"): (0, 1, 3),
    ("", "QLinearConv"): (0, 3, 5),
    ("", "QLinearMatMul"): (0, 3, 5),
    ("com.microsoft", "MatMulIntegerToFloat"): (0, 1, 5),
    ("com.microsoft", "QGemm"): (0, 3, 5),
}
"""Where operators read activations, weights and the zero point of the weights."""
_OFFSET = 128


def with_unsigned_weights(
    light: ModelProto, weights: Sequence[TensorProto], types: Mapping[str, int], store: TensorStore
) -> list[TensorProto]:
    """Let integer products of unsigned activations read unsigned weights.

    Parameters
    ----------
    light : ModelProto
        The graph; its nodes are changed in place, and get new tensors.
    weights : sequence of TensorProto
        Stored tensors of the graph.
    types : mapping of str to int
        Element type of activations.
    store : TensorStore
        Reads the weights.

    Returns
    -------
    list of TensorProto
        The weights that are needed now.
    """
    signed = {tensor.name: tensor for tensor in weights if tensor.data_type == TensorProto.INT8}
    made: dict[str, TensorProto] = {}
    for node in light.graph.node:
        slots = _SLOTS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
        if slots is None or types.get(node.input[slots[0]]) != TensorProto.UINT8 or node.input[slots[1]] not in signed:
            continue
        zero = node.input[slots[2]] if slots[2] < len(node.input) else ""
        if zero and zero not in signed:
            continue
        for slot, name in ((slots[1], node.input[slots[1]]), (slots[2], zero)):
            value = store.array(signed[name]).astype(np.int16) if name else np.zeros((), np.int16)
            moved = f"{name}.graphprune.unsigned"
            if moved not in made:
                made[moved] = numpy_helper.from_array((value + _OFFSET).astype(np.uint8), moved)
            _set_input(node, slot, moved)
    return [*weights, *made.values()]


def _set_input(node: NodeProto, slot: int, name: str) -> None:
    node.input.extend([""] * (slot + 1 - len(node.input)))
    node.input[slot] = name
