# SPDX-License-Identifier: Apache-2.0
"""Whatever is not in the figures is named, and everything else is in them."""

from __future__ import annotations

import re

import numpy as np
from onnx import TensorProto, helper
from oracle_check import check
from rule_cases import groups
from tiny_models import chain, model

import graphprune
from graphprune.analysis.analysis import Analysis
from graphprune.analysis.uncounted import Uncounted
from graphprune.model.load import load
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
    assert analysis.uncounted == (Uncounted("y", "Conv", 16, known=False),)
    (note,) = uncounted_notes(analysis)
    assert re.fullmatch(
        r"not in the FLOPs, and not pruned: 1 node with 16 weights \(40.0 % of all\) and about \d+ % of the time of a "
        "run, whose shapes are not known before the model runs: Conv y",
        note,
    )
    assert [layer.node for layer in analysis.layers] == ["h"]


def test_declared_shapes_are_believed_where_inference_stops() -> None:
    analysis = _analysis(declared=True)
    assert (analysis.uncounted, analysis.uncounted_time) == ((), 0.0)
    assert analysis.layers[1].flops(analysis.cost.sizes) == 2 * 8 * 2 * 5 * 6


def test_operators_that_nobody_knows_are_named_with_their_weights() -> None:
    proto = chain("m = com.example.Mystery (h, table)", {"table": (8, 40)}, domains=', "com.example": 1')
    proto.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, [2, 8, 6, 6]))
    analysis = graphprune.analyze(graphprune.load(proto))
    assert analysis.uncounted == (Uncounted("m", "Mystery", 320, known=True),)
    (note,) = uncounted_notes(analysis)
    assert note == (
        "not in the FLOPs, and not pruned: 1 node with 320 weights (88.9 % of all), "
        "for which there is no formula: Mystery m"
    )


def test_layers_on_a_map_made_from_sizes_run_for_every_sample() -> None:
    """As a network that is told where its pixels are: the map is as large as its input, and its layer has channels.

    So has the map itself, which is made in all of them alike.
    """
    text = """(float[1,3,a,6] x) => (float[1,2,c,d] y) {
        size = Shape (x)
        ones = ConstantOfShape <value = float[1] {1.0}> (size)
        place = CumSum (ones, two)
        p = Conv (place, where)
        h = Conv (x, first)
        s = Add (h, p)
        r = Relu (s)
        y = Conv (r, last)
    }"""
    proto = model(text, {**WEIGHTS, "where": (8, 3, 1, 1)}, two=np.asarray(2, dtype=np.int64))
    analysis = Analysis(load(proto), {"x": (1, 3, 6, 6)})
    assert [layer.node for layer in analysis.layers] == ["p", "h", "y"]
    assert analysis.layers[0].flops(analysis.cost.sizes) == 2 * 8 * 3 * 36
    assert groups(analysis) == {
        "p": (3, frozenset({"where.1 in"})),
        "p+": (8, frozenset({"where.0 out", "first.0 out", "last.1 in"})),
    }
    assert check(analysis).effect > 1e-3
