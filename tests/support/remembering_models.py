# SPDX-License-Identifier: Apache-2.0
"""Networks whose normalisations remember the data that they are told to have been trained on."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper
from tiny_models import model

from graphprune.api import load
from graphprune.array_types import Array
from graphprune.data.session import Session
from graphprune.data.signature import input_specs
from graphprune.data.statistics import measured
from graphprune.data.walk import Walk
from graphprune.model.graph import Graph
from graphprune.model.load import Model

NETWORK = """(float[n, CHANNELS, SIZE, SIZE] image) => (float[n, 6] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, first)
    b = BatchNormalization (a, scale1, shift1, mean1, var1)
    c = Relu (b)
    d = Conv <pads = [1, 1, 1, 1]> (c, second)
    e = BatchNormalization (d, scale2, shift2, mean2, var2)
    f = Relu (e)
    g = Conv <pads = [1, 1, 1, 1]> (f, third)
    h = BatchNormalization (g, scale3, shift3, mean3, var3)
    i = Relu (h)
    j = GlobalAveragePool (i)
    k = Flatten (j)
    scores = Gemm (k, head, offset)
}"""


def network(*, channels: int = 3, size: int = 12) -> ModelProto:
    """Return a network of three normalised convolutions, with statistics that fit nothing yet."""
    vectors = {f"{name}{at}": (16,) for at in (1, 2, 3) for name in ("scale", "shift", "mean", "var")}
    weights = {"first": (16, channels, 3, 3), "second": (16, 16, 3, 3), "third": (16, 16, 3, 3)}
    text = NETWORK.replace("CHANNELS", str(channels)).replace("SIZE", str(size))
    proto = model(text, {**weights, **vectors, "head": (16, 6), "offset": (6,)})
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("scale"):
            value = np.abs(numpy_helper.to_array(tensor)) + np.float32(0.5)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return proto


def trained_on(proto: ModelProto, images: Array) -> Model:
    """Return the network with the statistics that its normalisations have over some images."""
    network = load(proto)
    graph = Graph(network.proto)
    norms = [node for node in graph.nodes if node.op_type == "BatchNormalization"]
    with Walk(network, graph, [(norm.inputs[0],) for norm in norms], lambda _: {"image": images}, 1) as walk:
        for norm in norms:
            found = measured(values[norm.inputs[0]] for values in walk.step())
            for name, value in zip(norm.inputs[3:5], (found.mean, found.variance), strict=True):
                graph.initializers[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    return network


def outputs(network: Model, images: Array) -> Array:
    """Return what a network makes of images."""
    return Session(network).run({input_specs(network)[0].name: images})[0]
