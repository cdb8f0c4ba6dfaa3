# SPDX-License-Identifier: Apache-2.0
"""Decoders of the Llama and Qwen kind, as exporters write them, of any size; their weights may take no disk space."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

__all__ = ["SHAPES", "Decoder", "build"]

OPSET = 18
_ALIGNMENT = 4096
_EPSILON = 1e-6
_LOWEST = -65504.0
_DRAWN = 1 << 20
"""Random values that are drawn for one tensor; longer ones repeat them."""


@dataclass(frozen=True)
class Decoder:
    """The sizes of a decoder; those given are Llama 2 7B's.

    Attributes
    ----------
    hidden, inner : int
        Widths of the stream and of the gated layers between.
    heads, groups, head : int
        Query heads, heads of keys and values, and the size of each.
    bias, normed : bool
        Whether queries, keys and values have a bias (Qwen 2), and queries and keys a normalisation (Qwen 3).
    cached : bool
        Whether keys and values of earlier steps are inputs, and all of them outputs.
    """

    vocabulary: int = 32000
    hidden: int = 4096
    layers: int = 32
    inner: int = 11008
    heads: int = 32
    groups: int = 32
    head: int = 128
    bias: bool = False
    normed: bool = False
    cached: bool = True
    elem_type: int = TensorProto.FLOAT16


SHAPES = {
    "llama-2-7b": Decoder(),
    "llama-3-8b": Decoder(vocabulary=128256, inner=14336, groups=8),
    "qwen2-7b": Decoder(vocabulary=152064, hidden=3584, layers=28, inner=18944, heads=28, groups=4, bias=True),
}
"""Decoders that people use, by name."""


def build(shape: Decoder, path: Path, *, seed: int | None = None) -> int:
    """Write a decoder, and its weights into a data file beside it; returns the number of parameters.

    Parameters
    ----------
    seed : int, optional
        For random weights. Without one they are zeros in a sparse file, which takes no disk space.
    """
    draft = _Draft(shape, path.with_suffix(".data"), None if seed is None else np.random.default_rng(seed))
    with draft.data.open("wb") as draft.file:
        _decode(draft)
    path.write_bytes(draft.model().SerializeToString())
    return draft.parameters


@dataclass
class _Draft:
    """A graph in the making, whose weights go to a data file."""

    shape: Decoder
    data: Path
    random: np.random.Generator | None
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: dict[str, TensorProto] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    parameters: int = 0
    file: IO[bytes] = field(init=False)

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node with one output; return its name."""
        made = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [made], f"node_{made}", **attributes))
        return made

    def weight(self, name: str, *dims: int, ones: bool = False) -> str:
        """Append a stored tensor, of which the file holds zeros unless values are drawn; return its name."""
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(self.shape.elem_type))
        offset = -(-self.file.tell() // _ALIGNMENT) * _ALIGNMENT
        length = prod(dims) * dtype.itemsize
        self.file.seek(offset)
        if self.random is None:
            self.file.truncate(offset + length)
            self.file.seek(offset + length)
        else:
            drawn = self.random.standard_normal(min(prod(dims), _DRAWN))
            block = (1 + 0.1 * drawn if ones else drawn * dims[0] ** -0.5).astype(dtype).tobytes()
            for start in range(0, length, len(block)):
                self.file.write(block[: length - start])
        tensor = TensorProto(name=name, data_type=self.shape.elem_type, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.data.name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self.tensors[name] = tensor
        self.parameters += prod(dims)
        return name

    def number(self, value: float) -> str:
        """Return the name of a scalar of the type of the weights."""
        return self._constant(f"number_{value:g}", self.shape.elem_type, [], [value])

    def integers(self, *values: int) -> str:
        """Return the name of a vector of integers."""
        return self._constant("integers_" + "_".join(map(str, values)), TensorProto.INT64, [len(values)], values)

    def floats(self, name: str, values: Any) -> str:
        """Return the name of a vector of float32 values."""
        return self._constant(name, TensorProto.FLOAT, [len(values)], values)

    def _constant(self, name: str, kind: int, dims: list[int], values: Any) -> str:
        if name not in self.tensors:
            self.tensors[name] = helper.make_tensor(name, kind, dims, values)
        return name

    def size(self, value: str, axis: int) -> str:
        """Return the name of a vector with the length of one axis."""
        return self.add("Shape", value, start=axis, end=axis + 1)

    def input(self, name: str, kind: int, *dims: int | str) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def output(self, name: str, *dims: int | str) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, self.shape.elem_type, dims))

    def model(self) -> onnx.ModelProto:
        """Return the model with references to its data file."""
        graph = helper.make_graph(self.nodes, "decoder", self.inputs, self.outputs, list(self.tensors.values()))
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", OPSET)])


@dataclass(frozen=True)
class _Steps:
    """What all layers share: sizes, the mask that is added to scores, and the tables of the rotary embedding."""

    batch: str
    steps: str
    mask: str
    cos: str
    sin: str


def _decode(draft: _Draft) -> None:
    """Append everything."""
    shape = draft.shape
    tokens = draft.input("input_ids", TensorProto.INT64, "batch", "sequence")
    total = "past_sequence + sequence" if shape.cached else "sequence"
    mask = draft.input("attention_mask", TensorProto.INT64, "batch", total)
    positions = draft.input("position_ids", TensorProto.INT64, "batch", "sequence")
    steps = _steps(draft, tokens, mask, positions)
    x = draft.add("Gather", draft.weight("embed_tokens", shape.vocabulary, shape.hidden), tokens, name="embedded")
    draft.output("logits", "batch", "sequence", shape.vocabulary)
    for layer in range(shape.layers):
        x = draft.add("Add", x, _attention(draft, _norm(draft, x, f"layers.{layer}.input_norm"), layer, steps))
        x = draft.add("Add", x, _gated(draft, _norm(draft, x, f"layers.{layer}.post_norm"), f"layers.{layer}.mlp"))
    draft.add("MatMul", _norm(draft, x, "norm"), draft.weight("lm_head", shape.hidden, shape.vocabulary), name="logits")


def _steps(draft: _Draft, tokens: str, mask: str, positions: str) -> _Steps:
    """Compute from masks and positions what every layer reads."""
    shape, kind = draft.shape, draft.shape.elem_type
    batch, steps, total = draft.size(tokens, 0), draft.size(tokens, 1), draft.size(mask, 1)
    square = draft.add("Concat", steps, total, axis=0)
    hidden = draft.add("Expand", draft.number(_LOWEST), square)
    past = draft.add("Sub", total, steps)
    causal = draft.add("Trilu", hidden, draft.add("Add", draft.add("Squeeze", past), draft.integers(1)), upper=1)
    seen = draft.add("Cast", draft.add("Unsqueeze", mask, draft.integers(1, 2)), to=TensorProto.BOOL)
    padded = draft.add("Where", seen, causal, draft.number(_LOWEST))
    frequencies = draft.floats("frequencies", 10000.0 ** -(np.arange(0, shape.head, 2) / shape.head))
    place = draft.add("Cast", draft.add("Unsqueeze", positions, draft.integers(1, 3)), to=TensorProto.FLOAT)
    angle = draft.add("Mul", place, frequencies)
    angle = draft.add("Concat", angle, angle, axis=-1)
    cos, sin = (draft.add("Cast", draft.add(op, angle), to=kind) for op in ("Cos", "Sin"))
    return _Steps(batch, steps, padded, cos, sin)


def _norm(draft: _Draft, x: str, name: str, size: int = 0) -> str:
    """Divide by the root of the mean square, in float32, and scale."""
    kind = draft.shape.elem_type
    wide = draft.add("Cast", x, to=TensorProto.FLOAT)
    mean = draft.add("ReduceMean", draft.add("Mul", wide, wide), draft.integers(-1), keepdims=1)
    epsilon = draft.floats("epsilon", [_EPSILON])
    root = draft.add("Sqrt", draft.add("Add", mean, epsilon))
    narrow = draft.add("Cast", draft.add("Div", wide, root), to=kind)
    return draft.add("Mul", draft.weight(f"{name}.weight", size or draft.shape.hidden, ones=True), narrow)


def _attention(draft: _Draft, x: str, layer: int, steps: _Steps) -> str:
    """Append grouped-query attention with rotary embedding and, if there is one, a cache."""
    shape, name = draft.shape, f"layers.{layer}.attn"
    q = _rotate(draft, _heads(draft, x, f"{name}.q", shape.heads, steps), steps)
    k = _rotate(draft, _heads(draft, x, f"{name}.k", shape.groups, steps), steps)
    v = _heads(draft, x, f"{name}.v", shape.groups, steps)
    if shape.cached:
        k, v = (_cache(draft, new, layer, kind) for new, kind in ((k, "key"), (v, "value")))
    if shape.groups < shape.heads:
        k, v = _repeat(draft, k, steps), _repeat(draft, v, steps)
    scores = draft.add("MatMul", q, draft.add("Transpose", k, perm=[0, 1, 3, 2]))
    scores = draft.add("Add", draft.add("Mul", scores, draft.number(shape.head**-0.5)), steps.mask)
    weighted = draft.add("MatMul", draft.add("Softmax", scores, axis=-1), v)
    merged = draft.add("Transpose", weighted, perm=[0, 2, 1, 3])
    width = shape.heads * shape.head
    target = draft.add("Concat", steps.batch, steps.steps, draft.integers(-1), axis=0)
    flat = draft.add("Reshape", merged, target)
    return draft.add("MatMul", flat, draft.weight(f"{name}.o.weight", width, shape.hidden), name=f"{name}.o")


def _heads(draft: _Draft, x: str, name: str, heads: int, steps: _Steps) -> str:
    """Append a projection, cut into heads: (batch, heads, steps, size)."""
    shape = draft.shape
    made = draft.add("MatMul", x, draft.weight(f"{name}.weight", shape.hidden, heads * shape.head), name=name)
    if shape.bias:
        made = draft.add("Add", made, draft.weight(f"{name}.bias", heads * shape.head))
    target = draft.add("Concat", steps.batch, steps.steps, draft.integers(-1), draft.integers(shape.head), axis=0)
    apart = draft.add("Reshape", made, target)
    if shape.normed and not name.endswith(".v"):
        apart = _norm(draft, apart, f"{name}_norm", shape.head)
    return draft.add("Transpose", apart, perm=[0, 2, 1, 3])


def _rotate(draft: _Draft, x: str, steps: _Steps) -> str:
    """Turn pairs of positions within each head by an angle that grows with the step."""
    half, end = draft.shape.head // 2, np.iinfo(np.int64).max
    first = draft.add("Slice", x, draft.integers(0), draft.integers(half), draft.integers(3))
    second = draft.add("Slice", x, draft.integers(half), draft.integers(end), draft.integers(3))
    turned = draft.add("Concat", draft.add("Neg", second), first, axis=-1)
    return draft.add("Add", draft.add("Mul", x, steps.cos), draft.add("Mul", turned, steps.sin))


def _cache(draft: _Draft, new: str, layer: int, kind: str) -> str:
    """Put what is new behind what the cache holds, and give all of it."""
    shape, name = draft.shape, f"{layer}.{kind}"
    dims = ("batch", shape.groups, "past_sequence", shape.head)
    past = draft.input(f"past_key_values.{name}", shape.elem_type, *dims)
    draft.output(f"present.{name}", "batch", shape.groups, "past_sequence + sequence", shape.head)
    return draft.add("Concat", past, new, name=f"present.{name}", axis=2)


def _repeat(draft: _Draft, x: str, steps: _Steps) -> str:
    """Give each group of query heads its own copy of the head of keys or values that they share."""
    shape = draft.shape
    total = draft.size(x, 2)
    each, size = draft.integers(shape.heads // shape.groups), draft.integers(shape.head)
    target = draft.add("Concat", steps.batch, draft.integers(shape.groups), each, total, size, axis=0)
    spread = draft.add("Expand", draft.add("Unsqueeze", x, draft.integers(2)), target)
    flat = draft.add("Concat", steps.batch, draft.integers(shape.heads), total, size, axis=0)
    return draft.add("Reshape", spread, flat)


def _gated(draft: _Draft, x: str, name: str) -> str:
    """Append the gated layers: down(silu(gate(x)) * up(x))."""
    hidden, inner = draft.shape.hidden, draft.shape.inner
    gate = draft.add("MatMul", x, draft.weight(f"{name}.gate.weight", hidden, inner), name=f"{name}.gate")
    up = draft.add("MatMul", x, draft.weight(f"{name}.up.weight", hidden, inner), name=f"{name}.up")
    gated = draft.add("Mul", draft.add("Mul", gate, draft.add("Sigmoid", gate)), up)
    return draft.add("MatMul", gated, draft.weight(f"{name}.down.weight", inner, hidden), name=f"{name}.down")
