# SPDX-License-Identifier: Apache-2.0
"""Operators whose work follows from the shapes of what they read and make.

A model of such operators can be run wherever its values fit. What else it has may take any time and memory: a loop
without an end, texts that double, a box of a billion samples, an operator of another domain.
"""

from __future__ import annotations

from typing import Final

from onnx import ModelProto

from graphprune.model.validity.survey import survey

__all__ = ["LINEAR", "PRODUCTS", "unbounded_operators"]

_PER_ELEMENT: Final = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike
    Ceil Celu Clip Cos Cosh CumSum DequantizeLinear Div Dropout DynamicQuantizeLinear Elu Equal Erf Exp Floor Gelu
    Greater GreaterOrEqual HardSigmoid HardSwish Hardmax Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log
    LogSoftmax Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow QuantizeLinear Reciprocal Relu Round Selu Shrink
    Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Trilu Where Xor
"""
_PRODUCTS: Final = """
    Attention Conv ConvInteger ConvTranspose Einsum GRU Gemm LSTM MatMul MatMulInteger QLinearConv QLinearMatMul RNN
"""
_SUMMARIES: Final = """
    ArgMax ArgMin AveragePool BatchNormalization GlobalAveragePool GlobalMaxPool GroupNormalization
    InstanceNormalization LRN LayerNormalization LpNormalization MaxPool MeanVarianceNormalization RMSNormalization
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare RotaryEmbedding TopK
"""
_MOVES: Final = """
    Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND If NonZero
    OneHot Pad Range Reshape Resize ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth Split
    Squeeze Tile Transpose Unsqueeze Upsample
"""
LINEAR: Final = frozenset(" ".join((_PER_ELEMENT, _SUMMARIES, _MOVES)).split())
"""Operators that do about the same for every element that they read or make, whatever the others are."""
PRODUCTS: Final = frozenset(_PRODUCTS.split())
"""Operators whose kernels multiply matrices, as fast as a processor can."""
_BOUNDED: Final = LINEAR | PRODUCTS


def unbounded_operators(proto: ModelProto) -> list[str]:
    """Return the operators of a model, bodies and functions included, of whose work shapes say nothing."""
    return sorted({node.op_type for node in survey(proto).nodes if node.domain or node.op_type not in _BOUNDED})
