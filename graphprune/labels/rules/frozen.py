# SPDX-License-Identifier: Apache-2.0
"""Operators that no channel passes, each with the reason, and operators whose inputs are no channels at all.

An operator that is in none of the tables and has no rule freezes what touches it, too; being
listed here says that it was looked at, and gives people a better sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphprune.labels.operator import Operator
from graphprune.labels.registry import Rule, rule
from graphprune.model.inference.contributed import BLOCKED, MICROSOFT

__all__ = ["FROZEN", "FROZEN_BLOCKED", "FROZEN_CONTRIB", "IRRELEVANT", "MICROSOFT"]

_DRAWS = "draws one random number per element, so other elements would get other numbers"
_SEQUENCE = "keeps tensors in a sequence"
_OPTIONAL = "holds a value that may be absent"
_SPECTRUM = "transforms a signal along an axis"
_BODY = "runs a body whose state is not followed"
_CLASSES = "counts classes along an axis"

FROZEN: Mapping[str, str] = {
    **dict.fromkeys(("Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"), _DRAWS),
    **dict.fromkeys(("DFT", "STFT"), _SPECTRUM),
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), _BODY),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), _CLASSES),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), _OPTIONAL),
    **dict.fromkeys(("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceErase"), _SEQUENCE),
    **dict.fromkeys(("SequenceInsert", "SequenceLength", "SplitToSequence"), _SEQUENCE),
    "Compress": "keeps slices by a condition",
    "Det": "mixes all elements of a matrix",
    "EyeLike": "has its ones where two axes meet",
    "LinearAttention": "carries a state whose axes are not followed",
    "MaxUnpool": "its indices count through all channels",
    "NonMaxSuppression": "numbers boxes and classes",
    "NonZero": "numbers elements along every axis",
    "TensorScatter": "writes into a cache at places known only while the model runs",
    "TfIdfVectorizer": "counts terms",
    "Unique": "sorts and counts elements",
}
"""Operators of the default domain, and why their inputs stay."""

IRRELEVANT = frozenset(
    {
        *("BlackmanWindow", "Constant", "HammingWindow", "HannWindow", "ImageDecoder"),
        *("MelWeightMatrix", "RandomNormal", "RandomUniform", "Range", "RegexFullMatch", "SequenceEmpty", "Shape"),
        *("Size", "StringConcat", "StringNormalizer", "StringSplit"),
    }
)
"""Operators of the default domain that read sizes, strings or nothing: no channel reaches them."""

_FUSED = "is made by onnxruntime's optimiser: prune the model before optimising it"
_STATISTICS = "takes statistics over the channels"
_PACKED_BITS = "packs several weights into a byte: prune the model before quantising it"

FROZEN_CONTRIB: Mapping[str, str] = {
    **dict.fromkeys(("PackedAttention", "PackedMultiHeadAttention"), _FUSED),
    **dict.fromkeys(
        ("DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention"), "reads a cache of keys and values"
    ),
    **dict.fromkeys(("EmbedLayerNormalization", "QEmbedLayerNormalization"), _STATISTICS),
    **dict.fromkeys(("NhwcConv", "NhwcFusedConv"), _FUSED),
    **dict.fromkeys(("FusedMatMulActivation", "GemmFastGelu", "GemmFloat8"), _FUSED),
    **dict.fromkeys(("GroupNorm", "SkipGroupNorm"), "takes statistics over groups of channels, which come last"),
    **dict.fromkeys(("GatherBlockQuantized", "MatMulBnb4", "MatMulFpQ4", "QMoE"), _PACKED_BITS),
    "DynamicQuantizeLSTM": "quantises its weights by row",
    "GemmaRotaryEmbedding": _FUSED,
}
"""Operators of onnxruntime's own domain, and why their inputs stay; onnxruntime's optimiser makes most of them."""


FROZEN_BLOCKED: Mapping[str, str] = dict.fromkeys(
    (
        *("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReorderInput", "ReorderOutput"),
        "Upsample",
    ),
    "is laid out by onnxruntime for one kind of processor: prune the model before optimising it",
)
"""Operators on blocks of channels, and why their inputs stay."""


def _barrier(name: str, reason: str) -> Rule:
    def freeze(op: Operator) -> None:
        op.barrier(name, reason)

    return freeze


def _register(table: Iterable[tuple[str, str]], domain: str = "") -> None:
    for name, reason in table:
        rule(name, domain=domain, blind=True)(_barrier(name, reason))


_register(FROZEN.items())
_register((name, "reads the size of something whose size is not known") for name in sorted(IRRELEVANT))
_register(FROZEN_CONTRIB.items(), MICROSOFT)
_register(FROZEN_BLOCKED.items(), BLOCKED)
