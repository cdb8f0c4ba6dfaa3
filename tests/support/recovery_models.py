# SPDX-License-Identifier: Apache-2.0
"""A residual block with and without normalisation, scaled so that signals keep their size, and samples for it."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper
from tiny_models import model

from graphprune.api import load
from graphprune.data.arrays import from_arrays
from graphprune.data.signature import input_specs
from graphprune.data.source import Source

BLOCK = """(float[n, 3, 10, 10] image) => (float[n, 5] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, first)
    NORM
    e = Relu (d)
    f = Conv <pads = [1, 1, 1, 1]> (e, second)
    g = Add (f, b)
    h = Relu (g)
    i = GlobalAveragePool (h)
    j = Flatten (i)
    scores = Gemm (j, head, offset)
}"""
NORM = "d = BatchNormalization (c, scale, shift, mean, var)"
WEIGHTS = {"stem": (12, 3, 3, 3), "first": (16, 12, 3, 3), "second": (12, 16, 3, 3), "head": (12, 5), "offset": (5,)}


def block(*, norm: bool) -> ModelProto:
    vectors = dict.fromkeys(("scale", "shift", "mean", "var"), (16,)) if norm else {}
    proto = model(BLOCK.replace("NORM", NORM if norm else "d = Identity (c)"), {**WEIGHTS, **vectors})
    for tensor in proto.graph.initializer:
        if len(tensor.dims) > 1:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((value / np.sqrt(value[0].size)).astype(np.float32), tensor.name))
    return proto


def samples(proto: ModelProto, count: int = 128, seed: int = 0) -> Source:
    specs = input_specs(load(proto))
    rng = np.random.default_rng(seed)
    sizes = [tuple(size or count for size in spec.dims or ()) for spec in specs]
    sizes = [(count, *size[1:]) for size in sizes]
    arrays = {spec.name: rng.standard_normal(size).astype(np.float32) for spec, size in zip(specs, sizes, strict=True)}
    return from_arrays("samples", specs, arrays)
