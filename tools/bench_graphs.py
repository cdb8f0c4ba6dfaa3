# SPDX-License-Identifier: Apache-2.0
"""Synthetic graphs of any size for the scaling benchmark, their weights in a sparse file that takes no disk space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, external_data_helper, helper

OPSET = 17
SIDE = 4
TOKENS = 16
HEADS = 4


@dataclass
class Draft:
    """A graph in the making.

    Attributes
    ----------
    channels : int
        Output channels of all layers with weights so far.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    channels: int = 0
    bytes: int = 0

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; return its name."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], f"{op}_{len(self.nodes)}", **attributes))
        return name

    def weight(self, *dims: int) -> str:
        """Append a float tensor whose zeros are in the external file; return its name."""
        tensor = TensorProto(name=f"w{len(self.tensors)}", data_type=TensorProto.FLOAT, dims=dims)
        tensor.raw_data = b" "  # the helper wants to see some
        size = 4 * prod(dims)
        external_data_helper.set_external_data(tensor, "weights.bin", self.bytes, size)
        tensor.ClearField("raw_data")
        self.bytes += size
        self.tensors.append(tensor)
        return tensor.name

    def integers(self, *values: int) -> str:
        """Append a vector of integers; return its name."""
        name = f"w{len(self.tensors)}"
        self.tensors.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def layer(self, x: str, fan_in: int, width: int) -> str:
        """Append a pointwise convolution with normalisation and activation."""
        self.channels += width
        x = self.add("Conv", x, self.weight(width, fan_in, 1, 1))
        x = self.add("BatchNormalization", x, *(self.weight(width) for _ in range(4)))
        return self.add("Relu", x)

    def linear(self, x: str, fan_in: int, width: int) -> str:
        """Append a matrix product with a bias."""
        self.channels += width
        return self.add("Add", self.add("MatMul", x, self.weight(fan_in, width)), self.weight(width))


def residual_block(draft: Draft, x: str, width: int) -> str:
    """Append two branches, one of them two layers deep, concatenated, projected and added to the input."""
    left = draft.layer(draft.layer(x, width, width), width, width)
    right = draft.layer(x, width, width)
    both = draft.layer(draft.add("Concat", left, right, axis=1), 2 * width, width)
    return draft.add("Relu", draft.add("Add", x, both))


def shuffle_block(draft: Draft, x: str, width: int) -> str:
    """Append a ShuffleNet unit: half of the channels through layers, then both halves shuffled."""
    half = width // 2
    keep = draft.add("Slice", x, draft.integers(0), draft.integers(half), draft.integers(1))
    work = draft.add("Slice", x, draft.integers(half), draft.integers(width), draft.integers(1))
    both = draft.add("Concat", keep, draft.layer(draft.layer(work, half, half), half, half), axis=1)
    split = draft.add("Reshape", both, draft.integers(1, 2, half, SIDE, SIDE))
    return draft.add(
        "Reshape", draft.add("Transpose", split, perm=[0, 2, 1, 3, 4]), draft.integers(1, width, SIDE, SIDE)
    )


def attention_block(draft: Draft, x: str, width: int) -> str:
    """Append multi-head attention on (1, tokens, width) and a two-layer perceptron, each with a residual connection."""
    head = width // HEADS

    def split(perm: list[int]) -> str:
        shape = draft.integers(1, TOKENS, HEADS, head)
        return draft.add("Transpose", draft.add("Reshape", draft.linear(x, width, width), shape), perm=perm)

    scores = draft.add("Softmax", draft.add("MatMul", split([0, 2, 1, 3]), split([0, 2, 3, 1])), axis=-1)
    mixed = draft.add("Transpose", draft.add("MatMul", scores, split([0, 2, 1, 3])), perm=[0, 2, 1, 3])
    merged = draft.add("Reshape", mixed, draft.integers(1, TOKENS, width))
    x = draft.add("Add", x, draft.linear(merged, width, width))
    hidden = draft.add("Relu", draft.linear(x, width, 2 * width))
    return draft.add("Add", x, draft.linear(hidden, 2 * width, width))


BLOCKS: dict[str, Callable[[Draft, str, int], str]] = {
    "residual": residual_block,
    "shuffle": shuffle_block,
    "attention": attention_block,
}


def build(family: str, blocks: int, width: int, folder: Path) -> tuple[Path, int, int]:
    """Write a graph; return the file, its nodes and its channels."""
    draft = Draft()
    if family == "attention":
        x, dims, result = draft.linear("input", 3, width), [1, TOKENS, 3], [1, TOKENS, 10]
    else:
        x, dims, result = draft.layer("input", 3, width), [1, 3, SIDE, SIDE], [1, 10, SIDE, SIDE]
    for _ in range(blocks):
        x = BLOCKS[family](draft, x, width)
    if family == "attention":
        draft.add("MatMul", x, draft.weight(width, 10))
    else:
        draft.add("Conv", x, draft.weight(10, width, 1, 1))
    last = draft.nodes[-1].output[0]
    graph = helper.make_graph(
        draft.nodes,
        family,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, result)],
        draft.tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    with (folder / "weights.bin").open("wb") as stream:
        stream.truncate(draft.bytes)
    file = folder / f"{family}.onnx"
    file.write_bytes(model.SerializeToString())
    return file, len(draft.nodes), draft.channels
