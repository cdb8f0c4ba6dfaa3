# SPDX-License-Identifier: Apache-2.0
"""Models that the tests of explanations and of the networkx view share."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto
from tiny_models import model

import graphprune
from graphprune import Analysis

RESIDUAL = """
(float[1,3,8,8] image) => (float[] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, first)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1]> (d, second, shift)
    f = Add (e, b)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    scores = Gemm <transB = 1> (h, head)
}
"""
WEIGHTS = {"stem": (6, 3, 3, 3), "first": (8, 6, 3, 3), "second": (6, 8, 3, 3), "shift": (6,), "head": (4, 6)}


def named(proto: ModelProto) -> ModelProto:
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    return proto


def analysis_of(text: str, weights: Mapping[str, tuple[int, ...]]) -> Analysis:
    return graphprune.analyze(graphprune.load(named(model(text, weights))))
