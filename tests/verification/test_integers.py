# SPDX-License-Identifier: Apache-2.0
"""Copies whose integer products do not saturate mean the same as the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fast_oracle import feeds, run
from onnx import ModelProto, TensorProto
from quantised_models import quantised

import graphprune
from graphprune.verification.integers import with_unsigned_weights
from graphprune.verification.oracle import without_weights

PRODUCTS = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"})
FORMS: dict[str, Any] = {
    "operators": lambda: quantised("QOperator", per_channel=True),
    "dynamic": lambda: quantised("dynamic", per_channel=True),
}


def weight_types(proto: ModelProto) -> set[int]:
    """Return the element types of stored tensors of more than one value that integer products read."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    read = {name for node in proto.graph.node if node.op_type in PRODUCTS for name in node.input if name in stored}
    return {stored[name].data_type for name in read if np.prod(stored[name].dims) > 1} - {
        TensorProto.FLOAT,
        TensorProto.INT32,
    }


@pytest.mark.parametrize("form", FORMS)
def test_unsigned_weights_give_the_same(form: str) -> None:
    proto = FORMS[form]()
    analysis = graphprune.analyze(graphprune.load(proto))
    assert weight_types(proto) == {TensorProto.INT8}
    light, weights = without_weights(proto)
    weights = with_unsigned_weights(light, weights, analysis.shapes.dtypes, analysis.model.tensors)
    light.graph.initializer.extend(weights)
    assert weight_types(light) == {TensorProto.UINT8}
    inputs = feeds(analysis)
    before, after = run(proto, inputs), run(light, inputs)
    for name, value in before.items():
        assert np.array_equal(value, after[name])
