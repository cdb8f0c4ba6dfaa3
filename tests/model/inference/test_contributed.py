# SPDX-License-Identifier: Apache-2.0
"""Files that onnxruntime wrote are read: operators in the default domain that ONNX lacks, and shapes behind others."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, checker, helper
from oracle_check import analyze, check, run
from tiny_models import model

from graphprune.errors import ModelFileError
from graphprune.model.graph import Node
from graphprune.model.inference.contributed import infer_contributed
from graphprune.model.inference.known import Shapes
from graphprune.model.load import load

CONTRIB = ', "com.microsoft": 1'


@pytest.mark.parametrize("op", ["SimplifiedLayerNormalization", "LayerNormalization"])
def test_what_onnxruntime_adds_to_the_default_domain_is_read(op: str) -> None:
    text = f"""(float[2,5,3] x) => (float[2,5,2] y) {{
        h = MatMul (x, first)
        r = Relu (h)
        d = MatMul (r, down)
        n = {op} <axis = -1> (d, scale)
        y = MatMul (n, last)
    }}"""
    proto = model(text, {"first": (3, 8), "down": (8, 4), "scale": (4,), "last": (4, 2)}, opset=14)
    with pytest.raises(checker.ValidationError):
        checker.check_model(proto)
    assert analyze(load(proto).proto).shapes.dims["n"] == (2, 5, 4)


def test_what_onnx_has_withdrawn_and_onnxruntime_runs_is_read() -> None:
    text = """(float[2,3,6,6] x) => (float[2,2,6,6] y) {
        h = Conv (x, first)
        n = GroupNormalization <num_groups = 4> (h, scale, shift)
        y = Conv (n, last)
    }"""
    weights = {"first": (8, 3, 1, 1), "scale": (4,), "shift": (4,), "last": (2, 8, 1, 1)}
    proto = model(text, weights, opset=18)
    with pytest.raises(checker.ValidationError, match="deprecated"):
        checker.check_model(proto)
    outcome = check(proto)
    assert outcome.analysis.grouping.sizes.tolist() == [4]
    assert outcome.effect > 1e-3


def test_other_unknown_operators_of_the_default_domain_are_refused() -> None:
    proto = model("(float[2,3] x) => (float[2,3] y) { y = Relu (x) }")
    proto.graph.node[0].op_type = "NobodyKnows"
    with pytest.raises(ModelFileError, match="No Op registered for NobodyKnows"):
        load(proto)


@pytest.mark.parametrize(
    ("node", "inputs", "attributes"),
    [
        ("FusedConv", [(1, 3, 8, 9), (4, 3, 3, 3)], {"activation": "Relu", "strides": [2, 2], "pads": [1, 0, 1, 0]}),
        ("FusedGemm", [(5, 7), (3, 7)], {"activation": "Relu", "transB": 1}),
        ("FusedMatMul", [(2, 7, 5), (3, 7)], {"transA": 1, "transB": 1, "alpha": 0.5}),
        ("FusedMatMul", [(5, 7, 2), (5, 7, 3)], {"transA": 1, "transBatchA": 1, "transBatchB": 1}),
        ("SkipLayerNormalization", [(2, 5, 8), (2, 5, 8), (8,)], {}),
        ("Attention", [(2, 5, 12), (12, 24), (24,)], {"num_heads": 2}),
        ("MultiHeadAttention", [(2, 5, 12), (2, 9, 12), (2, 9, 8)], {"num_heads": 2}),
        ("BiasGelu", [(2, 5, 8), (8,)], {}),
    ],
)
def test_shapes_are_those_of_a_run(node: str, inputs: list[tuple[int, ...]], attributes: dict[str, object]) -> None:
    names = [f"x{number}" for number in range(len(inputs))]
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(node, names, ["m"], domain="com.microsoft", **attributes),
                helper.make_node("Relu", ["m"], ["y"]),
            ],
            "one",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in zip(names, inputs, strict=True)
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    feeds = {name: np.ones(shape, dtype=np.float32) for name, shape in zip(names, inputs, strict=True)}
    expected = run(proto, feeds, ["m"])["m"]
    # A size that a run would show is not asked for where the shape is inferred: the run is made impossible here.
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "NobodyRunsThis", "com.example"
    proto.opset_import.add(domain="com.example", version=1)
    assert analyze(proto).shapes.dims["m"] == expected.shape


TYPES = {
    "tokens that are counted": (
        "EmbedLayerNormalization",
        {"ids": (TensorProto.INT32, (2, 5)), "": None, "words": (TensorProto.FLOAT16, (9, 8))},
        {"made": TensorProto.FLOAT16, "lengths": TensorProto.INT32},
    ),
    "a cache of integers": (
        "GroupQueryAttention",
        {
            **dict.fromkeys(("q", "k", "v"), (TensorProto.FLOAT, (2, 1, 16))),
            **dict.fromkeys(("keys", "values"), (TensorProto.INT8, (2, 2, 4, 8))),
            **dict.fromkeys(("lengths", "total"), (TensorProto.INT32, (2,))),
        },
        {"made": TensorProto.FLOAT, "all_keys": TensorProto.INT8},
    ),
    "real numbers of integers": (
        "QAttention",
        {
            "x": (TensorProto.UINT8, (2, 5, 8)),
            "w": (TensorProto.INT8, (8, 24)),
            "b": (TensorProto.FLOAT, (24,)),
            "s": (TensorProto.FLOAT, ()),
        },
        {"made": TensorProto.FLOAT},
    ),
}


@pytest.mark.parametrize("name", TYPES)
def test_types_are_those_of_the_signature(name: str) -> None:
    op_type, inputs, outputs = TYPES[name]
    proto = helper.make_node(op_type, [*inputs], [*outputs], domain="com.microsoft", num_heads=2, kv_num_heads=2)
    given = {value: item for value, item in inputs.items() if item is not None}
    known = Shapes(
        dims={value: item[1] for value, item in given.items()},
        dtypes={value: int(item[0]) for value, item in given.items()},
    )
    infer_contributed(Node(0, proto), known, 17)
    assert {value: known.dtypes[value] for value in outputs} == outputs
