# SPDX-License-Identifier: Apache-2.0
"""Operators that onnxruntime adds to those of ONNX: which they are, and what shapes they give.

Files that onnxruntime's optimiser or its model builders wrote are full of them. onnx has no schema for them: its
checker refuses those that stand in the default domain, and its shape inference stops at every one. A run would tell
the shapes, but needs all weights, and inputs that the operators accept (a cache of keys wants fitting lengths).

Signatures are those of onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from onnx import NodeProto, TensorProto, defs, helper, shape_inference

from graphprune.model.inference.known import Shapes
from graphprune.model.inference.whole_inference import INFERENCE_ERRORS

if TYPE_CHECKING:
    from graphprune.model.graph import Node

__all__ = ["BLOCKED", "MICROSOFT", "infer_contributed", "is_contributed"]

MICROSOFT = "com.microsoft"
"""Domain of the operators that onnxruntime adds."""

BLOCKED = "com.microsoft.nchwc"
"""Domain of those that it lays out in blocks of channels, as wide as one kind of processor likes."""

_IN_DEFAULT_DOMAIN: Mapping[str, tuple[float, float]] = {
    "GroupNormalization": (18, 21),
    "LayerNormalization": (1, 17),
    "SimplifiedLayerNormalization": (1, float("inf")),
}
"""Operators of the default domain that onnxruntime runs, and from which version to below which ONNX's checker does not
know them: its own come later, or have been withdrawn since."""

Dims = tuple[int, ...]
_Made = Iterable[tuple[int, Dims]]


def is_contributed(domain: str, op_type: str, version: int) -> bool:
    """Whether onnxruntime runs an operator of the default domain that this version of ONNX does not have."""
    since, until = _IN_DEFAULT_DOMAIN.get(op_type, (0, 0))
    return domain in ("", "ai.onnx") and since <= version < until


_STAND_INS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "FusedConv": ("Conv", (0, 1)),
    "FusedGemm": ("Gemm", (0, 1)),
    "QGemm": ("Gemm", (0, 3)),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), ("Add", (0, 3))),
    **dict.fromkeys(("DynamicQuantizeMatMul", "MatMulIntegerToFloat"), ("MatMul", (0, 1))),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearConv": ("Conv", (0, 3)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
}
"""Operators of ONNX whose first output has the shape that the contributed one's has, and which inputs those read."""

_FOREIGN = frozenset(
    {"activation", "activation_alpha", "activation_beta", "activation_gamma", "activation_params", "channels_last"}
)


def infer_contributed(node: Node, known: Shapes, opset: int) -> None:
    """Add the shapes of what a contributed operator makes to what is known, as far as its inputs' are.

    Parameters
    ----------
    opset : int
        Version of the standard operators, some of which give the same shapes.
    """
    make = _RULES.get(node.op_type) if node.domain in ("", MICROSOFT) else None
    inputs = _Inputs(node, known)
    try:
        found = [*_like_standard(node, inputs, opset), *(make(node, inputs) if make else ())]
    except (KeyError, IndexError):
        return
    for slot, dims in found:
        if slot < len(node.outputs) and node.outputs[slot]:
            known.dims.setdefault(node.outputs[slot], dims)
            known.dtypes.setdefault(node.outputs[slot], _type(node, slot, known))


_TYPED_BY: Mapping[str, Sequence[int]] = {
    "DequantizeLinear": (1,),
    "EmbedLayerNormalization": (2,),
    "GatherBlockQuantized": (2,),
    "MatMulIntegerToFloat": (3,),
    "QAttention": (3,),
    "QGemm": (8, 1),
    "QLinearConcat": (1,),
    "QLinearConv": (7,),
    "QuantizeLinear": (2,),
    "SimplifiedLayerNormalization": (1,),
}
"""Inputs of which the first that is given has the type of the outputs, where that is not the very first."""

_LATER_TYPED_BY: Mapping[str, Sequence[int]] = {"GroupQueryAttention": (3, 0)}
"""The same of all outputs but the first, where it is another: a cache may hold integers."""

_LENGTHS = frozenset({("EmbedLayerNormalization", 1)})
"""Outputs that count tokens, by operator and place."""


def _type(node: Node, slot: int, known: Shapes) -> int:
    """Return the type of an output."""
    if (node.op_type, slot) in _LENGTHS:
        return TensorProto.INT32
    typed_by = _TYPED_BY.get(node.op_type, (0,))
    typed_by = _LATER_TYPED_BY.get(node.op_type, typed_by) if slot else typed_by
    given = (node.inputs[at] for at in typed_by if at < len(node.inputs) and node.inputs[at])
    return known.dtypes.get(next(given, ""), 0)


class _Inputs:
    """Shapes of the inputs of a node by slot, and values of those that are small constants."""

    def __init__(self, node: Node, known: Shapes) -> None:
        self._node, self._known = node, known

    def __call__(self, slot: int) -> Dims:
        return self._known.dims[self._node.inputs[slot]]

    def value(self, slot: int) -> int | None:
        """Return the only element of a constant."""
        found = self._known.values.get(self._node.inputs[slot])
        return int(found.item()) if found is not None and found.size == 1 else None


def _like_standard(node: Node, dims: _Inputs, opset: int) -> _Made:
    """Let onnx infer the shape as if the operator were the standard one that it does the work of."""
    found = _STAND_INS.get(node.op_type) if node.domain == MICROSOFT else None
    if found is None or node.attribute("channels_last", 0):
        return
    op_type, slots = found
    names = [f"input{slot}" for slot in slots]
    proto = NodeProto(op_type=op_type, input=names, output=["made"])
    proto.attribute.extend(item for item in node.proto.attribute if item.name not in _FOREIGN)
    types = {
        name: helper.make_tensor_type_proto(TensorProto.FLOAT, dims(slot))
        for name, slot in zip(names, slots, strict=True)
    }
    try:
        schema = defs.get_schema(op_type, opset, "")
        made = shape_inference.infer_node_outputs(schema, proto, types)["made"].tensor_type.shape.dim
    except INFERENCE_ERRORS:
        return
    yield 0, tuple(dim.dim_value for dim in made)


_Rule = Callable[["Node", _Inputs], _Made]


def _like_first(*outputs: int) -> _Rule:
    """Give these outputs the shape of the first input."""
    return lambda node, dims: [(slot, dims(0)) for slot in outputs]


def _fused_matmul(node: Node, dims: _Inputs) -> _Made:
    """As `MatMul` of operands that are transposed before: first rows against batch axes, then rows against columns."""
    a, b = dims(0), dims(1)
    if len(a) < 2 or len(b) < 2:
        return
    a = (*a[1:-1], a[0], a[-1]) if node.attribute("transBatchA", 0) else a
    b = (*b[1:-1], b[0], b[-1]) if node.attribute("transBatchB", 0) else b
    rows = a[-1] if node.attribute("transA", 0) else a[-2]
    columns = b[-2] if node.attribute("transB", 0) else b[-1]
    longer, shorter = sorted((a[:-2], b[:-2]), key=len, reverse=True)
    shorter = (1,) * (len(longer) - len(shorter)) + shorter
    batch = tuple(second if first == 1 else first for first, second in zip(longer, shorter, strict=True))
    yield 0, (*batch, rows, columns)


def _channels_last(node: Node, dims: _Inputs) -> _Made:
    """Convolve (batch, space, channels) with kernels stored as those of `Conv`."""
    batch, *space, _ = dims(0)
    slot = 3 if node.op_type == "QLinearConv" else 1
    if not _is_plain(node):
        kernel = node.attribute("kernel_shape") or dims(slot)[2:]
        yield 0, (batch, *_windows(node, space, kernel), dims(slot)[0])


def _pool_channels_last(node: Node, dims: _Inputs) -> _Made:
    """Pool over the axes between batch and channels."""
    batch, *space, channels = dims(0)
    if node.op_type == "QLinearGlobalAveragePool" and not _is_plain(node):
        yield 0, (batch, *(1 for _ in space), channels)
    elif not _is_plain(node) and not node.attribute("ceil_mode", 0):
        yield 0, (batch, *_windows(node, space, node.attribute("kernel_shape")), channels)


def _is_plain(node: Node) -> bool:
    """Whether channels stand where ONNX has them; of an operator named for the other order they do not."""
    return not node.op_type.startswith("Nhwc") and not node.attribute("channels_last", 0)


def _windows(node: Node, space: Sequence[int], kernel: Sequence[int]) -> Dims:
    """Return the number of places of a sliding window along each axis."""
    count = len(space)
    strides, dilations = (node.attribute(name) or [1] * count for name in ("strides", "dilations"))
    automatic = node.attribute("auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        return tuple(-(-size // stride) for size, stride in zip(space, strides, strict=True))
    pads = (node.attribute("pads") if automatic != "VALID" else None) or [0] * (2 * count)
    return tuple(
        (space[at] + pads[at] + pads[at + count] - dilations[at] * (kernel[at] - 1) - 1) // strides[at] + 1
        for at in range(count)
    )


def _packed_matmul(node: Node, dims: _Inputs) -> _Made:
    yield 0, (*dims(0)[:-1], node.attribute("N"))


def _embedding(node: Node, dims: _Inputs) -> _Made:
    tokens, size = dims(0), dims(2)[-1]
    return [(0, (*tokens, size)), (1, tokens[:1]), (2, (*tokens, size))]


def _attention(node: Node, dims: _Inputs) -> _Made:
    """Q, K and V come out of one product; `present` holds keys over values."""
    batch, steps, _ = dims(0)
    heads, packed = node.attribute("num_heads"), dims(1)[1]
    sizes = node.attribute("qkv_hidden_sizes") or [packed // 3] * 3
    yield 0, (batch, steps, sizes[2])
    past = dims(4)[3] if len(node.inputs) > 4 and node.inputs[4] else 0
    yield 1, (2, batch, heads, past + steps, sizes[1] // heads)


def _multi_head(node: Node, dims: _Inputs) -> _Made:
    q, heads = dims(0), node.attribute("num_heads")
    given = [slot < len(node.inputs) and bool(node.inputs[slot]) for slot in range(8)]
    if len(q) == 5:
        batch, steps, size, seen = q[0], q[1], q[2] * q[4], q[1]
    elif not given[2]:
        batch, steps, seen, size = q[0], q[1], dims(1)[1], q[2]
    elif len(dims(1)) == 4:  # keys and values that an encoder made
        batch, steps, seen, size = q[0], q[1], dims(1)[2], heads * dims(2)[3]
    else:
        batch, steps, seen, size = q[0], q[1], dims(1)[1], dims(2)[2]
    seen += dims(6)[2] if given[6] else 0
    yield 0, (batch, steps, size)
    yield 1, (batch, heads, seen, q[-1] // (1 if len(q) == 5 else heads))
    yield 2, (batch, heads, seen, size // heads)
    yield 3, (batch, heads, steps, seen)


def _group_query(node: Node, dims: _Inputs) -> _Made:
    (batch, steps, packed), heads, few = dims(0), node.attribute("num_heads"), node.attribute("kv_num_heads")
    apart = len(node.inputs) > 1 and bool(node.inputs[1])
    size = packed // (heads if apart else heads + 2 * few)
    past, total = dims(3)[2] if len(node.inputs) > 3 and node.inputs[3] else 0, dims.value(6)
    # A cache that is long enough is filled in place; otherwise the steps are put behind it.
    seen = past + steps if total is None else max(past, total)
    yield 0, (batch, steps, heads * size)
    for slot in (1, 2):
        yield slot, (batch, few, seen, size)


def _concat(node: Node, dims: _Inputs) -> _Made:
    parts = [dims(slot) for slot in range(2, len(node.inputs), 3)]
    axis = node.attribute("axis") % len(parts[0])
    yield 0, (*parts[0][:axis], sum(part[axis] for part in parts), *parts[0][axis + 1 :])


def _gathered(node: Node, dims: _Inputs) -> _Made:
    data, axis, bits = dims(0), node.attribute("gather_axis", 0), node.attribute("bits", 4)
    inner = data[-1] * (8 // bits) if len(data) == 2 else 0
    if inner and axis == 0:
        yield 0, (*dims(1), inner)


_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(("BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu"), _like_first(0)),
    **dict.fromkeys(
        ("DequantizeLinear", "QuantizeLinear", "GemmaRotaryEmbedding", "GroupNorm", "Inverse", "MoE"), _like_first(0)
    ),
    "GroupNormalization": _like_first(0),  # of ONNX itself, which has no inference for it
    **dict.fromkeys(("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QMoE", "QuickGelu"), _like_first(0)),
    **dict.fromkeys(("LayerNormalization", "RotaryEmbedding", "SimplifiedLayerNormalization"), _like_first(0)),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _like_first(0, 3)),
    "SkipGroupNorm": _like_first(0, 1),
    **dict.fromkeys(("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul"), _fused_matmul),
    **dict.fromkeys(("MatMulBnb4", "MatMulFpQ4", "MatMulNBits"), _packed_matmul),
    "Attention": _attention,
    "EmbedLayerNormalization": _embedding,
    "GatherBlockQuantized": _gathered,
    "GroupQueryAttention": _group_query,
    "MultiHeadAttention": _multi_head,
    "QAttention": _attention,
    "QLinearConcat": _concat,
    **dict.fromkeys(("NhwcConv", "NhwcFusedConv", "QLinearConv"), _channels_last),
    **dict.fromkeys(("NhwcMaxPool", "QLinearAveragePool", "QLinearGlobalAveragePool"), _pool_channels_last),
}
