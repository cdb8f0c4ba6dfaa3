# SPDX-License-Identifier: Apache-2.0
"""Small networks in low precision: quantised by onnxruntime's own tool, or converted by hand."""

from __future__ import annotations

import functools
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 3, 10, 10] image) => (float[n, 6] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem, stem_bias)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1], group = 16> (b, depth, depth_bias)
    d = Clip (c, zero, six)
    e = Conv (d, back, back_bias)
    f = Add (e, b)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    i = Gemm <transB = 1> (h, hidden, hidden_bias)
    j = Sigmoid (i)
    k = MatMul (j, head)
    scores = Add (k, head_bias)
}
"""
SHAPES = {
    "stem": (16, 3, 3, 3),
    "stem_bias": (16,),
    "depth": (16, 1, 3, 3),
    "depth_bias": (16,),
    "back": (16, 16, 1, 1),
    "back_bias": (16,),
    "hidden": (24, 16),
    "hidden_bias": (24,),
    "head": (24, 6),
    "head_bias": (6,),
}


def float_model(seed: int = 0) -> ModelProto:
    """Return a residual network with a depthwise convolution and two dense layers, in float32."""
    proto = onnx.parser.parse_model(NETWORK)
    rng = np.random.default_rng(seed)
    for name, shape in SHAPES.items():
        scale = 0.2 if len(shape) == 1 else 1.5 / np.sqrt(np.prod(shape[1:]))
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(0, scale, shape).astype(np.float32), name))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(6), "six"))
    return proto


class _Images:
    """Random calibration data, as onnxruntime's tool wants it."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self._rest: Iterator[dict[str, Any]] = iter(
            [{"image": rng.standard_normal((4, 3, 10, 10)).astype(np.float32)} for _ in range(2)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rest, None)


@functools.cache
def quantised(
    form: str = "QDQ", weight: str = "QInt8", activation: str = "QUInt8", *, per_channel: bool = True, **extra: Any
) -> ModelProto:
    """Return `float_model` quantised by onnxruntime; `form` is "QDQ", "QOperator" or "dynamic"."""
    from onnxruntime import quantization as tool

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(float_model(), source)
        kinds = {"weight_type": tool.QuantType[weight], "per_channel": per_channel, "reduce_range": True}
        try:
            if form == "dynamic":
                tool.quantize_dynamic(source, target, **kinds)
            else:
                tool.quantize_static(
                    source,
                    target,
                    _Images(),
                    quant_format=tool.QuantFormat[form],
                    activation_type=tool.QuantType[activation],
                    extra_options=extra,
                    **kinds,
                )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def converted(elem_type: int, *, keep_inputs: bool = False) -> ModelProto:
    """Return `float_model` in another float type, with casts at inputs and outputs if these stay float32."""
    proto = float_model()
    dtype = ml_dtypes.bfloat16 if elem_type == TensorProto.BFLOAT16 else helper.tensor_dtype_to_np_dtype(elem_type)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    if keep_inputs:
        first = helper.make_node("Cast", ["image"], ["image_low"], to=elem_type)
        last = helper.make_node("Cast", ["scores_low"], ["scores"], to=TensorProto.FLOAT)
        nodes = list(proto.graph.node)
        nodes[0].input[0], nodes[-1].output[0] = "image_low", "scores_low"
        del proto.graph.node[:]
        proto.graph.node.extend([first, *nodes, last])
    else:
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.elem_type = elem_type
    return proto
