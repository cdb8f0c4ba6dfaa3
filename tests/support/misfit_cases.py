# SPDX-License-Identifier: Apache-2.0
"""Operands that do not fit, operator by operator, beside what looks as wrong and is legal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

__all__ = ["CASES", "MisfitCase"]

F, U8 = np.float32, np.uint8


def ones(*shape: int, dtype: Any = F) -> np.ndarray:
    return np.ones(shape, dtype)


@dataclass(frozen=True)
class MisfitCase:
    """What makes `m` of `h`, with stored operands, and what is said of it."""

    middle: str
    operands: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    opset: int = 17
    after: int = 8


QUANTISED = "q = QuantizeLinear <axis = 1> (h, s, z)\n m = DequantizeLinear <axis = 1> (q, s, z)"
BLOCKS = QUANTISED.replace("axis = 1", "axis = 1, block_size = 3")
GROUPS = "m = GroupNormalization <num_groups = 2> (h, s, b)"
Q_CONV = "q = QuantizeLinear (h, s, z)\n p = QLinearConv (q, s, z, k, ks, z, s, z)\n m = DequantizeLinear (p, s, z)"
KERNEL = {"s": ones(), "z": ones(dtype=U8), "k": ones(8, 8, 1, 1, dtype=U8)}
OF_IMAGES = {
    "gather": MisfitCase(
        "m = Gather <axis = 1> (h, i)", {"i": [0, 99]}, r"Gather\('m'\): input 1 'i' .* 99, .* axis 1 .* 8", after=2
    ),
    "gather from behind": MisfitCase("m = Gather <axis = 1> (h, i)", {"i": [0, -9]}, "position -9, .* 8", after=2),
    "gather, last from behind": MisfitCase("m = Gather <axis = 1> (h, i)", {"i": [0, -8]}, after=2),
    "elements": MisfitCase(
        "m = GatherElements <axis = 1> (h, i)", {"i": np.full((2, 2, 6, 6), 9)}, "position 9, .* 8", after=2
    ),
    "elements, too many": MisfitCase(
        "m = GatherElements <axis = 1> (h, i)", {"i": np.ones((2, 2, 6, 7), int)}, "axis 3 of input 0 has 6", after=2
    ),
    "elements, fewer": MisfitCase("m = GatherElements <axis = 1> (h, i)", {"i": np.ones((1, 2, 6, 5), int)}, after=2),
    "slices": MisfitCase(
        "t = GatherND (h, i)\n m = Add (h, t)", {"i": [[0, 9]]}, "position 9, but axis 1 of input 0 has 8"
    ),
    "scattered": MisfitCase(
        "m = ScatterElements <axis = 1> (h, i, u)", {"i": np.full((1, 1, 1, 1), 9), "u": ones(1, 1, 1, 1)}, "position 9"
    ),
    "scattered updates": MisfitCase(
        "m = ScatterElements <axis = 1> (h, i, u)",
        {"i": np.ones((1, 1, 1, 2), int), "u": ones(1, 1, 1, 1)},
        r"input 2 'u' .*\[1, 1, 1, 1\].*\[1, 1, 1, 2\]",
    ),
    "scattered slices": MisfitCase(
        "m = ScatterND (h, i, u)", {"i": [[0, 9]], "u": ones(1, 6, 6)}, "position 9, but axis 1"
    ),
    "scattered slices' updates": MisfitCase(
        "m = ScatterND (h, i, u)", {"i": [[0, 1]], "u": ones(1, 6, 5)}, r"\[1, 6, 5\].*\[1, 6, 6\]"
    ),
    "layer": MisfitCase(
        "m = LayerNormalization <axis = 1> (h, s)", {"s": ones(7)}, r"input 1 's' has the shape \[7\], .*\[8, 6, 6\]"
    ),
    "layer's bias": MisfitCase(
        "m = LayerNormalization <axis = -1> (h, s, b)", {"s": ones(6), "b": ones(5)}, r"input 2 'b' .*\[5\].*\[6\]"
    ),
    "layer, broadcast": MisfitCase("m = LayerNormalization <axis = 1> (h, s)", {"s": ones(8, 1, 1)}),
    "layer, last of three": MisfitCase("m = LayerNormalization <axis = 1> (h, s)", {"s": ones(6)}),
    "layer's axis": MisfitCase("m = LayerNormalization <axis = 9> (h, s)", {"s": ones(6)}, "has 4 axes, but axis is 9"),
    "root mean square": MisfitCase(
        "m = RMSNormalization <axis = -1> (h, s)", {"s": ones(7)}, r"\[7\].*\[6\]", opset=23
    ),
    "groups": MisfitCase(GROUPS, {"s": ones(2), "b": ones(2)}, r"input 1 's' .*\[2\], but must have \[8\]", opset=21),
    "groups, before 21": MisfitCase(GROUPS, {"s": ones(8), "b": ones(8)}, r"\[8\], but must have \[2\]", opset=18),
    "groups, legal": MisfitCase(GROUPS, {"s": ones(8), "b": ones(8)}, opset=21),
    "groups, legal before 21": MisfitCase(GROUPS, {"s": ones(2), "b": ones(2)}, opset=18),
    "uneven groups": MisfitCase(
        GROUPS.replace("2>", "3>"), {"s": ones(8), "b": ones(8)}, "8 channels, which num_groups 3", opset=21
    ),
    "scales": MisfitCase(
        QUANTISED, {"s": ones(7), "z": ones(7, dtype=U8)}, r"QuantizeLinear\('q'\): input 1 's' .*\[7\].* must be 8"
    ),
    "zero points": MisfitCase(QUANTISED, {"s": ones(8), "z": ones(7, dtype=U8)}, r"input 2 'z' .*\[7\].*\[8\]"),
    "one zero point": MisfitCase(QUANTISED, {"s": ones(8), "z": ones(dtype=U8)}, r"input 2 'z' .*\[\].*\[8\]"),
    "one scale in a list": MisfitCase(QUANTISED, {"s": ones(1), "z": ones(1, dtype=U8)}),
    "one scale and a list": MisfitCase(QUANTISED, {"s": ones(), "z": ones(1, dtype=U8)}),
    "scales of blocks": MisfitCase(
        BLOCKS.replace("3>", "2>"),
        {"s": ones(2, 3, 6, 6), "z": ones(2, 3, 6, 6, dtype=U8)},
        r"\[2, 4, 6, 6\]",
        opset=21,
    ),
    "scales of blocks, legal": MisfitCase(BLOCKS, {"s": ones(2, 3, 6, 6), "z": ones(2, 3, 6, 6, dtype=U8)}, opset=21),
    "an axis with one scale": MisfitCase(QUANTISED.replace("axis = 1", "axis = 7"), {"s": ones(), "z": ones(dtype=U8)}),
    "scales of a kernel": MisfitCase(Q_CONV, {**KERNEL, "ks": ones(7)}, r"input 4 'ks' .*\[7\].*\[8\]"),
    "scales of a kernel, legal": MisfitCase(Q_CONV, {**KERNEL, "ks": ones(8)}),
    "slope": MisfitCase(
        "m = PRelu (h, s)", {"s": ones(7, 1, 1)}, r"PRelu\('m'\): input 1 's' .*\[7, 1, 1\].*\[2, 8, 6, 6\]"
    ),
    "slope along the last axis": MisfitCase("m = PRelu (h, s)", {"s": ones(8)}, r"\[8\]"),
    "one slope": MisfitCase("m = PRelu (h, s)", {"s": ones(1)}),
    "bounds": MisfitCase("m = Clip (h, s)", {"s": ones(2)}, r"input 1 's' .*\[2\], but must be one number"),
    "resizing": MisfitCase(
        'm = Resize (h, "", s)', {"s": np.array([1, 1, 2], F)}, "input 2 's' has 3 numbers, but 4 axes"
    ),
    "resizing some axes": MisfitCase(
        'm = Resize <axes = [2, 3]> (h, "", s)', {"s": np.array([1, 2, 2], F)}, "3 numbers, but 2 axes", opset=18
    ),
    "shrinking below nothing": MisfitCase(
        'm = Resize (h, "", s)', {"s": np.array([1, 1, -2, 2], F)}, "asks for -2.0 of axis 2"
    ),
    "mirrored": MisfitCase(
        'm = Pad <mode = "reflect"> (h, p)', {"p": [0, 0, 7, 0, 0, 0, 0, 0]}, "asks for 7 at axis 2 .* 6 are there"
    ),
    "mirrored, legal": MisfitCase('m = Pad <mode = "reflect"> (h, p)', {"p": [0, 0, 5, 0, 0, 0, 0, 0]}),
    "blocks": MisfitCase("m = SpaceToDepth <blocksize = 4> (h)", {}, "blocksize 4 does not divide axis 2", after=128),
    "letters": MisfitCase(
        'm = Einsum <equation = "nchw,c->nchw"> (h, s)', {"s": ones(3)}, "input 1 's' has 3 of 'c', .* 8"
    ),
    "sums so far": MisfitCase("m = CumSum (h, a)", {"a": np.array(9)}, "input 1 'a' is axis 9, but input 0 has 4"),
    "neighbours": MisfitCase("m = LRN <size = 4> (h)", {}, "size 4, which must be odd"),
    "window of padding": MisfitCase(
        "m = MaxPool <kernel_shape = [2, 2], pads = [3, 3, 0, 0]> (h)", {}, "padded by 3 along axis 2, .* 2"
    ),
    "padding behind": MisfitCase(
        "m = ConvTranspose <output_padding = [3, 3]> (h, k)", {"k": ones(8, 8, 1, 1)}, "output_padding 3 at axis 2"
    ),
    "diagonal": MisfitCase("m = Trilu (h, i)", {"i": [1, 2]}, r"\[2\], but must be one number"),
}

LSTM = "s, last_state = LSTM <hidden_size = 8> (h, w, r{})\n m = Squeeze (s, one)"
GATES = {"w": ones(1, 32, 8), "r": ones(1, 32, 8), "one": [1]}
OWN = "m = com.microsoft.{}"
OF_SEQUENCES = {
    "lengths": MisfitCase(
        LSTM.format(', "", n'), {**GATES, "n": ones(3, dtype=np.int32)}, r"input 4 'n' .*\[3\], but must have \[5\]"
    ),
    "a length": MisfitCase(
        LSTM.format(', "", n'), {**GATES, "n": np.full(5, 9, np.int32)}, "has the length 9, but there are 2 steps"
    ),
    "first state": MisfitCase(
        LSTM.format(', "", "", c'), {**GATES, "c": ones(1, 4, 8)}, r"input 5 'c' .*\[1, 4, 8\].*\[1, 5, 8\]"
    ),
    "first cell": MisfitCase(
        LSTM.format(', "", "", "", c'), {**GATES, "c": ones(1, 5, 7)}, r"\[1, 5, 7\].*\[1, 5, 8\]"
    ),
    "peepholes": MisfitCase(LSTM.format(', "", "", "", "", c'), {**GATES, "c": ones(1, 25)}, r"\[1, 25\].*\[1, 24\]"),
    "states, legal": MisfitCase(LSTM.format(', "", "", c, c'), {**GATES, "c": ones(1, 5, 8)}),
    "packed weight": MisfitCase(
        OWN.format("Attention <num_heads = 2> (h, w, b)"),
        {"w": ones(7, 24), "b": ones(24)},
        r"input 1 'w' .*axis 0 must be 8",
    ),
    "packed bias": MisfitCase(
        OWN.format("Attention <num_heads = 2> (h, w, b)"),
        {"w": ones(8, 24), "b": ones(8)},
        r"input 2 'b' .*\[8\].*\[24\]",
    ),
    "heads of packed": MisfitCase(
        OWN.format("Attention <num_heads = 3> (h, w, b)"),
        {"w": ones(8, 24), "b": ones(24)},
        "8 channels, which num_heads 3",
    ),
    "packed, legal": MisfitCase(OWN.format("Attention <num_heads = 2> (h, w, b)"), {"w": ones(8, 24), "b": ones(24)}),
    "heads": MisfitCase(
        OWN.format("MultiHeadAttention <num_heads = 3> (h, h, h)"), {}, "8 channels, which num_heads 3"
    ),
    "bias of heads": MisfitCase(
        OWN.format("MultiHeadAttention <num_heads = 2> (h, h, h, b)"), {"b": ones(23)}, r"input 3 'b' .*\[23\].*\[24\]"
    ),
    "skip's scale": MisfitCase(
        OWN.format("SkipLayerNormalization (h, x, s, b)"), {"s": ones(7), "b": ones(8)}, r"input 2 's' .*\[7\].*\[8\]"
    ),
    "skip": MisfitCase(
        OWN.format("SkipLayerNormalization (h, k, s, b)"),
        {"k": ones(2, 5, 7), "s": ones(8), "b": ones(8)},
        r"input 1 'k'",
    ),
    "bias of gelu": MisfitCase(
        OWN.format("BiasGelu (h, b)"), {"b": ones(7)}, r"BiasGelu\('m'\): input 1 'b' .*\[7\].*\[8\]"
    ),
    "fused product": MisfitCase(OWN.format("FusedMatMul (h, w)"), {"w": ones(7, 8)}, "input 1 'w' .* axis 0 must be 8"),
    "packed bits": MisfitCase(
        OWN.format("MatMulNBits <K = 8, N = 8, bits = 4, block_size = 16> (h, w, s)"),
        {"w": ones(8, 1, 8, dtype=U8), "s": ones(7)},
        "has 7 scales, but 8",
    ),
    "bias of rows": MisfitCase(
        "f = Reshape (h, t)\n g = Gemm (f, w, b)\n m = Reshape (g, v)",
        {"t": [10, 8], "v": [2, 5, 8], "w": ones(8, 8), "b": ones(9, 8)},
        r"input 2 'b' .*\[9, 8\].*\[10, 8\]",
    ),
    "bias of one row": MisfitCase(
        "f = Reshape (h, t)\n g = Gemm (f, w, b)\n m = Reshape (g, v)",
        {"t": [10, 8], "v": [2, 5, 8], "w": ones(8, 8), "b": ones(10, 1)},
    ),
}


def _model(text: str, opset: int, operands: dict[str, Any]) -> onnx.ModelProto:
    proto = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> between {text}',
    )
    arrays = {name: np.asarray(value) for name, value in operands.items()}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto


def _between_convolutions(case: MisfitCase) -> onnx.ModelProto:
    text = f"(float[2,3,6,6] x) => (float[a,b,c,d] y) {{ h = Conv (x, first)\n {case.middle}\n y = Conv (m, last) }}"
    operands = {"first": ones(8, 3, 1, 1), "last": ones(2, case.after, 1, 1), **case.operands}
    return _model(text, case.opset, operands)


def _between_products(case: MisfitCase) -> onnx.ModelProto:
    text = f"(float[2,5,8] x) => (float[a,b,c] y) {{ h = MatMul (x, first)\n {case.middle}\n y = MatMul (m, last) }}"
    return _model(text, case.opset, {"first": ones(8, 8), "last": ones(8, 3), **case.operands})


CASES = {
    **{name: (_between_convolutions(case), case.said) for name, case in OF_IMAGES.items()},
    **{name: (_between_products(case), case.said) for name, case in OF_SEQUENCES.items()},
}
"""Models by name, and what is said of them: nothing where they are legal."""
