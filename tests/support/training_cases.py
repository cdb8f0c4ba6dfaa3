# SPDX-License-Identifier: Apache-2.0
"""Tiny networks and samples for the tests of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnx import ModelProto
from tiny_models import model

from graphprune.array_types import Array
from graphprune.data.source import Batch, Source
from graphprune.model.load import Model, load
from graphprune.training.loader import Samples

torch.set_num_threads(1)


NORMALISED = """(float[n,3,8,8] image) => (float[n,4] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem.weight)
    b = BatchNormalization (a, bn.weight, bn.bias, mean.0, var.0)
    c = Relu (b)
    d = Conv <pads = [1, 1, 1, 1]> (c, block.weight)
    e = BatchNormalization (d, bn2.weight, bn2.bias, mean.1, var.1)
    f = Add (e, c)
    g = Relu (f)
    h = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (g)
    i = Flatten (h)
    scores = Gemm <transB = 1> (i, head.weight, head.bias)
}"""

FOLDED = """(float[n,3,8,8] image) => (float[n,4] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w1, b1)
    d = Relu (c)
    e = GlobalAveragePool (d)
    p = Conv (e, w2, b2)
    q = Sigmoid (p)
    r = Mul (d, q)
    s = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (r)
    t = Flatten (s)
    scores = Gemm <transB = 1> (t, w3, b3)
}"""


def _renamed(text: str) -> str:
    """Let names of weights have no dots in the text, which ONNX's syntax does not know."""
    return (
        text.replace(".weight", "_weight").replace(".bias", "_bias").replace("mean.", "mean_").replace("var.", "var_")
    )


def normalised(width: int = 8) -> ModelProto:
    """Return a residual network with BatchNormalization, whose weights have dotted names as torch gives them."""
    vectors = {f"{name}": (width,) for name in ("bn_weight", "bn_bias", "bn2_weight", "bn2_bias", "mean_0", "mean_1")}
    shapes = {
        "stem_weight": (width, 3, 3, 3),
        "block_weight": (width, width, 3, 3),
        "head_weight": (4, 4 * width),
        "head_bias": (4,),
        "var_0": (width,),
        "var_1": (width,),
        **vectors,
    }
    proto = model(_renamed(NORMALISED), shapes)
    for tensor in proto.graph.initializer:
        for node in proto.graph.node:
            for at, name in enumerate(node.input):
                if name == tensor.name:
                    node.input[at] = name.replace("_", ".")
        tensor.name = tensor.name.replace("_", ".")
    return proto


def folded(width: int = 8) -> ModelProto:
    """Return a network whose BatchNormalization was folded, with a squeeze-and-excitation that never had one."""
    shapes = {"w0": (width, 3, 3, 3), "w1": (width, width, 3, 3), "w2": (width, width, 1, 1), "w3": (4, 4 * width)}
    return model(FOLDED, {**shapes, "b0": (width,), "b1": (width,), "b2": (width,), "b3": (4,)})


@dataclass(frozen=True)
class Arrays:
    """Samples in memory."""

    feeds: Mapping[str, Array]
    labels: Array | None = None
    classes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        return self.labels is not None

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    def read(self, positions: npt.NDArray[np.int64]) -> Batch:
        labels = None if self.labels is None else self.labels[positions]
        return Batch({name: value[positions] for name, value in self.feeds.items()}, labels)


def images(count: int = 64, *, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def source(count: int = 64, labels: Array | None = None) -> Source:
    return Source.whole("noise", Arrays({"image": images(count)}, labels))


def samples(count: int = 8) -> Samples:
    return Samples.of(source(count).read(np.arange(count)))


def loaded(proto: ModelProto) -> Model:
    return load(proto)


def infer(found: Model, value: Array) -> Array:
    """Return the only output in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(found.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {session.get_inputs()[0].name: value})[0]
    return result
