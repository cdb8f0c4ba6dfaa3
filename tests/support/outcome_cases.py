# SPDX-License-Identifier: Apache-2.0
"""A small classifier of two stages with residual streams, and labelled samples that it is right for."""

from __future__ import annotations

from functools import cache

import numpy as np
from onnx import ModelProto, numpy_helper
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.api import load
from graphprune.data.arrays import from_arrays
from graphprune.data.session import Session
from graphprune.data.signature import input_specs
from graphprune.data.source import Source

TEXT = """(float[n, 3, 8, 8] image) => (float[n, 4] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, first)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1]> (d, second)
    f = Add (e, b)
    g = Relu (f)
    h = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (g, down)
    i = Relu (h)
    j = Conv <pads = [1, 1, 1, 1]> (i, third)
    k = Relu (j)
    l = Conv <pads = [1, 1, 1, 1]> (k, fourth)
    m = Add (l, i)
    o = Relu (m)
    p = GlobalAveragePool (o)
    q = Flatten (p)
    scores = Gemm (q, head, offset)
}"""
WEIGHTS = {
    "stem": (8, 3, 3, 3),
    "first": (12, 8, 3, 3),
    "second": (8, 12, 3, 3),
    "down": (10, 8, 3, 3),
    "third": (14, 10, 3, 3),
    "fourth": (10, 14, 3, 3),
    "head": (10, 4),
    "offset": (4,),
}


@cache
def network() -> ModelProto:
    """Return a network whose signals keep their size and whose scores are centred."""
    proto = model(TEXT, WEIGHTS)
    rng = np.random.default_rng(4)
    for tensor in proto.graph.initializer:
        if len(tensor.dims) > 1:
            value = rng.standard_normal(tuple(tensor.dims)) / np.sqrt(np.prod(tensor.dims[1:]) / 2)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    (offset,) = (tensor for tensor in proto.graph.initializer if tensor.name == "offset")
    scores = Session(load(proto)).run({"image": images(256, 9)})[0]
    centred = numpy_helper.to_array(offset) - scores.mean(axis=0)
    offset.CopyFrom(numpy_helper.from_array(centred.astype(np.float32), "offset"))
    return proto


def images(count: int, seed: int) -> np.ndarray:
    """Return noise that is smooth enough to say something different in every image."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 3, 4, 4)).repeat(2, axis=2).repeat(2, axis=3)
    return (coarse + 0.3 * rng.standard_normal((count, 3, 8, 8))).astype(np.float32)


def samples(count: int = 160, seed: int = 0, *, labelled: bool = False) -> Source:
    """Return samples; labels are what the network says."""
    loaded, drawn = load(network()), images(count, seed)
    labels = Session(loaded).run({"image": drawn})[0].argmax(axis=1) if labelled else None
    return from_arrays("samples", input_specs(loaded), {"image": drawn}, labels)


def analysis() -> Analysis:
    """Return the network, analysed: streams of 8 and 10, blocks of 12 and 14."""
    return Analysis(load(network()))
