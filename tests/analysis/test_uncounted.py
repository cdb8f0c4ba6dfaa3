# SPDX-License-Identifier: Apache-2.0
"""Layers behind shapes that nobody knows beforehand are named, and declared shapes are believed."""

from __future__ import annotations

from onnx import TensorProto, helper
from tiny_models import model

import graphprune
from graphprune.report.summary import uncounted_notes

TEXT = """(float[1,3,6,6] x) => (float[a,b,c,d] y) {
    h = Conv (x, first)
    z = NonZero (h)
    i = Slice (z, zero, one, zero)
    k = Cast <to = 7> (i)
    f = Flatten (k)
    g = Squeeze (f, zero)
    u = Gather <axis = 2> (h, g)
    y = Conv (u, last)
}"""
WEIGHTS = {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)}


def _analysis(*, declared: bool) -> graphprune.Analysis:
    proto = model(TEXT, WEIGHTS, zero=[0], one=[1])
    del proto.graph.value_info[:]
    if declared:
        proto.graph.value_info.append(helper.make_tensor_value_info("u", TensorProto.FLOAT, [1, 8, 5, 6]))
    return graphprune.analyze(graphprune.load(proto))


def test_layers_of_unknown_shape_are_named() -> None:
    analysis = _analysis(declared=False)
    assert analysis.uncounted == ("y",)
    (note,) = uncounted_notes(analysis)
    assert note.startswith("1 layers are neither counted nor pruned")
    assert [layer.node for layer in analysis.layers] == ["h"]


def test_declared_shapes_are_believed_where_inference_stops() -> None:
    analysis = _analysis(declared=True)
    assert analysis.uncounted == ()
    assert analysis.layers[1].flops(analysis.cost.sizes) == 2 * 8 * 2 * 5 * 6
