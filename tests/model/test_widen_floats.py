# SPDX-License-Identifier: Apache-2.0
"""Copies in float32: what is computed from weights alone in a half type is rounded as there, samples are not."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune.model.load import load
from graphprune.model.widen_floats import widened

HALVES = {"bfloat16": (TensorProto.BFLOAT16, 2.0**-8), "float16": (TensorProto.FLOAT16, 2.0**-11)}


@pytest.mark.parametrize("name", HALVES)
def test_what_comes_of_weights_alone_keeps_its_rounding(name: str) -> None:
    kind, half_step = HALVES[name]
    stored = helper.make_tensor("stored", kind, [3], [1.0, 0.3, 3.7])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["length"], to=TensorProto.FLOAT),
        helper.make_node("Sqrt", ["length"], ["root"]),
        helper.make_node("Cast", ["root"], ["scale"], to=kind),
        helper.make_node("Mul", ["stored", "scale"], ["weight"]),
        helper.make_node("Cast", ["x"], ["narrow"], to=kind),
        helper.make_node("Mul", ["narrow", "weight"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [3]) for end in ("x", "y")]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [stored])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    copy = widened(load(proto)).proto
    values = np.array([1.0, 0.1, 0.7], np.float32)
    (found,) = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": values}
    )
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    scale = np.sqrt(np.float32(3)).astype(dtype)
    weight = (numpy_helper.to_array(stored).astype(np.float32) * scale.astype(np.float32)).astype(dtype)
    assert np.array_equal(found, values * weight.astype(np.float32))
    exact = values * np.array([1.0, 0.3, 3.7], np.float32) * np.sqrt(np.float32(3))
    assert 0 < np.abs(found / exact - 1).max() <= 3 * half_step
