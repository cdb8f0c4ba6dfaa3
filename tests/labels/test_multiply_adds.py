# SPDX-License-Identifier: Apache-2.0
"""Every operator is counted, or its work is elementwise and left out on purpose; what stays whole counts as well."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import ModelProto, TensorProto, defs, helper
from oracle_check import analyze

from graphprune.labels.multiply_adds import formulas
from graphprune.model.inference.contributed import MICROSOFT
from graphprune.model.values.layers import CONTRIBUTED_LAYERS, FREE, LAYERS

ELEMENTWISE = frozenset(
    {
        *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Bernoulli", "BitCast", "BitShift"),
        *("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos"),
        *("Cosh", "DequantizeLinear", "Div", "Dropout", "DynamicQuantizeLinear", "Elu", "Equal", "Erf", "Exp"),
        *("Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN"),
        *("LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or"),
        *("PRelu", "Pow", "QuantizeLinear", "Reciprocal", "Relu", "RotaryEmbedding", "Round", "Selu", "Shrink"),
        *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "SwiGLU", "Swish", "Tan"),
        *("Tanh", "ThresholdedRelu", "Where", "Xor"),
    }
)
STATISTICS = frozenset(
    {
        *("ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "CumProd", "CumSum", "GlobalAveragePool"),
        *("GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "Hardmax", "InstanceNormalization", "LRN"),
        *("LayerNormalization", "LogSoftmax", "LpNormalization", "LpPool", "MaxPool", "MaxRoiPool"),
        *("MeanVarianceNormalization", "NegativeLogLikelihoodLoss", "RMSNormalization", "ReduceL1", "ReduceL2"),
        *("ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
        *("ReduceSumSquare", "RoiAlign", "Softmax", "SoftmaxCrossEntropyLoss", "TopK", "Unique"),
    }
)
MOVING = frozenset(
    {
        *("AffineGrid", "CenterCropPad", "Col2Im", "Compress", "Concat", "ConcatFromSequence", "DepthToSpace"),
        *("Expand", "Flatten", "Gather", "GatherElements", "GatherND", "GridSample", "MaxUnpool", "OneHot"),
        *("Optional", "OptionalGetElement", "OptionalHasElement", "Pad", "Reshape", "Resize", "ReverseSequence"),
        *("Scatter", "ScatterElements", "ScatterND", "SequenceAt", "SequenceConstruct", "SequenceErase"),
        *("SequenceInsert", "SequenceLength", "Slice", "SpaceToDepth", "Split", "SplitToSequence", "Squeeze"),
        *("TensorScatter", "Tile", "Transpose", "Trilu", "Unsqueeze", "Upsample"),
    }
)
MAKING = frozenset(
    {
        *("BlackmanWindow", "Constant", "ConstantOfShape", "EyeLike", "HammingWindow", "HannWindow", "ImageDecoder"),
        *("MelWeightMatrix", "Multinomial", "NonMaxSuppression", "NonZero", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike", "Range", "RegexFullMatch", "SequenceEmpty", "Shape", "Size"),
        *("StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"),
    }
)
BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""What they do is done by the nodes in their bodies, which are counted there."""


def test_every_operator_is_counted_or_left_out_on_purpose() -> None:
    operators = {schema.name for schema in defs.get_all_schemas_with_history() if schema.domain == ""}
    kinds = [LAYERS, ELEMENTWISE, STATISTICS, MOVING, MAKING, BODIES]
    listed = [name for kind in kinds for name in kind]
    assert len(listed) == len(set(listed)), "an operator is of two kinds"
    assert operators - set(listed) == set(), "of no kind: give it a formula, or say why it needs none"
    assert set(listed) <= operators


def test_operators_of_onnxruntime_are_counted_or_left_out_on_purpose() -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    operators = {schema.name for schema in get_all_operator_schema() if schema.domain == MICROSOFT}
    assert not CONTRIBUTED_LAYERS & FREE
    assert operators > CONTRIBUTED_LAYERS | FREE - {"GridSample"}, "listed, but no operator"
    # The rest (search loops, experiments, other hardware) is said to be in no figure wherever it stands.
    assert len(CONTRIBUTED_LAYERS | FREE) >= 0.6 * len(operators)


def test_every_layer_of_onnxruntime_has_a_formula() -> None:
    assert {name for domain, name in formulas() if domain == MICROSOFT} == CONTRIBUTED_LAYERS


def _node(
    op: str, shapes: list[tuple[int, ...]], output: tuple[int, ...], domain: str, **attributes: Any
) -> ModelProto:
    """Return a model of one node whose output has the given shape; an input of shape () is left out."""
    names = [f"x{number}" if shape else "" for number, shape in enumerate(shapes)]
    node = helper.make_node(op, names, ["y", "state"][: 1 + (op == "LinearAttention")], domain=domain, **attributes)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, shapes, strict=True)
        if name
    ]
    graph = helper.make_graph([node], "one", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)])
    imports = [helper.make_opsetid("", 27 if op == "LinearAttention" else 20), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


ROWS = (2, 5, 12)
"""Two samples of five steps with twelve values each."""


@pytest.mark.parametrize(
    ("op", "shapes", "output", "attributes", "macs"),
    [
        ("FusedConv", [(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 6, 6), {"activation": "Relu"}, 16 * 36 * 27),
        ("NhwcConv", [(1, 8, 8, 3), (16, 3, 3, 3)], (1, 6, 6, 16), {}, 16 * 36 * 27),
        ("FusedGemm", [(5, 7), (7, 3)], (5, 3), {"activation": "Relu"}, 5 * 7 * 3),
        ("FusedMatMul", [(2, 7, 5), (2, 7, 3)], (2, 5, 3), {"transA": 1}, 2 * 5 * 7 * 3),
        ("FusedMatMul", [(5, 7, 2), (2, 7, 3)], (7, 5, 3), {"transBatchA": 1, "transBatchB": 1}, 7 * 5 * 3 * 2),
        ("MatMulNBits", [ROWS, (7, 1, 8), (7,)], (2, 5, 7), {"N": 7, "K": 12, "block_size": 16}, 2 * 5 * 7 * 12),
        ("Attention", [ROWS, (12, 24), (24,)], (2, 5, 8), {"num_heads": 2}, 2 * 5 * 12 * 24 + 2 * 5 * 5 * 16),
        ("MultiHeadAttention", [ROWS, (2, 9, 12), (2, 9, 8)], (2, 5, 8), {"num_heads": 2}, 2 * 5 * 9 * 20),
        (
            "GroupQueryAttention",
            [(2, 5, 24), (2, 5, 12), (2, 5, 12), (2, 2, 4, 6), (2, 2, 4, 6), (2,), (1,)],
            (2, 5, 24),
            {"num_heads": 4, "kv_num_heads": 2},
            2 * 4 * 5 * 9 * 12,
        ),
        ("MoE", [(5, 12), (5, 4), (4, 7, 12), (), (4, 12, 7)], (5, 12), {"k": 2}, 5 * 2 * 2 * 12 * 7),
        ("DynamicQuantizeMatMul", [(5, 7), (7, 3), (1,)], (5, 3), {}, 5 * 7 * 3),
    ],
)
def test_what_onnxruntime_adds_costs_what_a_hand_count_gives(
    op: str, shapes: list[tuple[int, ...]], output: tuple[int, ...], attributes: dict[str, Any], macs: int
) -> None:
    analysis = analyze(_node(op, shapes, output, MICROSOFT, **attributes))
    assert analysis.cost.flops(analysis.cost.sizes) == 2 * macs
    assert analysis.uncounted == ()


@pytest.mark.parametrize(
    ("op", "shapes", "output", "attributes", "macs"),
    [
        ("DFT", [(3, 64, 1)], (3, 64, 2), {}, 3 * 960),  # 2.5 x 64 x 6
        ("Det", [(5, 3, 3)], (5,), {}, 5 * 9),
        (
            "LinearAttention",
            [(2, 5, 24), (2, 5, 12), (2, 5, 14)],
            (2, 5, 28),
            {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": "linear"},
            2 * 5 * 6 * 7 * (4 + 2),
        ),
        (
            "LinearAttention",
            [(2, 5, 12), (2, 5, 12), (2, 5, 14), (), (), (2, 5, 2)],
            (2, 5, 14),
            {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "delta"},
            2 * 5 * 6 * 7 * (2 + 4),
        ),
    ],
)
def test_what_is_frozen_costs_what_a_hand_count_gives(
    op: str, shapes: list[tuple[int, ...]], output: tuple[int, ...], attributes: dict[str, Any], macs: int
) -> None:
    analysis = analyze(_node(op, shapes, output, "", **attributes))
    assert analysis.cost.flops(analysis.cost.sizes) == 2 * macs
    assert analysis.uncounted == ()
