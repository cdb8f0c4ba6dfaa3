# SPDX-License-Identifier: Apache-2.0
"""Layers: the operators that multiply and add, and so are counted wherever they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.model.inference.contributed import BLOCKED, MICROSOFT
from graphprune.model.values.bodies import DOMAIN

if TYPE_CHECKING:
    from graphprune.model.graph import Node

__all__ = ["CONTRIBUTED_LAYERS", "FREE", "LAYERS", "is_free", "is_layer"]

LAYERS = frozenset(
    {
        *("Attention", "CausalConvWithState", "Conv", "ConvInteger", "ConvTranspose", "DFT", "DeformConv", "Det"),
        *("Einsum", "GRU", "Gemm", "LSTM", "LinearAttention", "MatMul", "MatMulInteger", "QLinearConv"),
        *("QLinearMatMul", "RNN", "STFT"),
    }
)
"""Operators of the default domain whose multiply-adds are counted."""

CONTRIBUTED_LAYERS = frozenset(
    {
        *("Attention", "CausalConvWithState", "ConvTransposeWithDynamicPads", "DecoderMaskedMultiHeadAttention"),
        *("DecoderMaskedSelfAttention", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "FusedConv", "FusedGemm"),
        *("FusedMatMul", "FusedMatMulActivation", "GemmFastGelu", "GemmFloat8", "GroupQueryAttention", "MatMulBnb4"),
        *("MatMulFpQ4", "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "MoE", "MultiHeadAttention"),
        *("NhwcConv", "NhwcFusedConv", "PackedAttention", "PackedMultiHeadAttention", "QAttention", "QGemm"),
        *("QLinearConv", "QMoE", "TransposeMatMul"),
    }
)
"""Those of onnxruntime's own domain."""

FREE = frozenset(
    {
        *("BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BiasSplitGelu", "BifurcationDetector"),
        *("BitmaskBiasDropout", "BitmaskDropout", "CropAndResize", "DequantizeLinear", "EmbedLayerNormalization"),
        *("ExpandDims", "FastGelu", "GatedAdd", "GatedRMSNorm", "GatherBlockQuantized", "GatherND", "Gelu"),
        *("GemmaRotaryEmbedding", "GridSample", "GroupNorm", "IsAllFinite", "MRotaryEmbedding", "MaxpoolWithMask"),
        *("MulInteger", "NGramRepeatBlock", "NhwcMaxPool", "Pad", "QEmbedLayerNormalization", "QLinearAdd"),
        *("QLinearAveragePool", "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul"),
        *("QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear", "QuickGelu"),
        *("Range", "ReduceSumInteger", "RelativePositionBias", "RemovePadding", "RestorePadding", "RotaryEmbedding"),
        *("ScaledSiLU", "SkipGroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Tokenizer"),
        *("TorchEmbedding", "Trilu", "UnfoldTensor", "Unique"),
    }
)
"""Operators of onnxruntime's own domain that treat elements one by one, or move them: they are counted nowhere."""


def is_layer(node: Node) -> bool:
    """Whether a node multiplies and adds so much that it counts."""
    if node.domain == MICROSOFT:
        return node.op_type in CONTRIBUTED_LAYERS
    if node.domain == BLOCKED:
        return node.op_type == "Conv"
    return not node.domain and node.op_type in LAYERS


def is_free(node: Node) -> bool:
    """Whether a node's work is left out of every figure on purpose: its elements are treated one by one, or moved.

    Of the default domain that is all but the layers. An operator that is neither a layer nor free is one that
    nobody here knows.
    """
    if node.domain == MICROSOFT:
        return node.op_type in FREE
    return node.domain in ("", BLOCKED, DOMAIN) and node.op_type not in LAYERS
