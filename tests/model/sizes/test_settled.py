# SPDX-License-Identifier: Apache-2.0
"""Layers over stored data whose sizes the file fixes: they cost a run nothing, be their sizes computed or spelt."""

from __future__ import annotations

import numpy as np
import onnx
from tiny_models import model

from graphprune import api
from graphprune.model.graph import Graph
from graphprune.model.sizes.settled import settled_layers


def _stored_beside_an_activation(batch: str = "3") -> onnx.ModelProto:
    """Return a network in which a stored tensor takes its sizes from an activation, and goes through a layer."""
    return model(
        f"""(float[{batch},6,2] x) => (float[a,b,c] y, float[d,e,f] z) {{
            c = MatMul (x, first)
            rows = Shape <start = 0, end = 2> (x)
            width = Shape (scale)
            target = Concat <axis = 0> (rows, width)
            placed = Reshape (stored, target)
            root = Sqrt (scale)
            scaled = Mul (c, root)
            sum = Add (scaled, placed)
            y = MatMul (sum, last)
            z = MatMul (placed, aside)
        }}""",
        {"first": (2, 8), "stored": (3 * 6 * 8,), "last": (8, 2), "aside": (8, 5)},
        scale=np.full(8, 4, np.float32),
    )


def test_what_is_predicted_is_what_the_written_file_costs() -> None:
    analysis = api.analyze(api.load(_stored_beside_an_activation()))
    assert [layer.node for layer in analysis.layers] == ["c", "y"]
    assert analysis.uncounted == ()
    plan = api.solve(analysis, flops=0.5)
    written = api.analyze(api.load(api.apply(analysis, plan).proto))
    assert plan.budgets[0].after < plan.budgets[0].before
    assert written.cost.flops(written.cost.sizes) == plan.budgets[0].after


def test_open_sizes_settle_nothing() -> None:
    analysis = api.analyze(api.load(_stored_beside_an_activation("N")), api.AnalyzeOptions({"x": (3, 6, 2)}))
    assert settled_layers(analysis.graph, analysis.shapes) == frozenset()
    assert [layer.node for layer in analysis.layers] == ["c", "y", "z"]


def test_drawn_numbers_are_not_settled() -> None:
    proto = model(
        """(float[1,4] x) => (float[1,4] y, float[1,2] z) {
            drawn = RandomNormalLike (x)
            weighed = MatMul (drawn, w)
            noise = RandomNormal <shape = [1, 4]> ()
            z = MatMul (noise, v)
            y = Add (x, weighed)
        }""",
        {"w": (4, 4), "v": (4, 2)},
    )
    graph = Graph(proto)
    shapes = api.analyze(api.load(proto)).shapes
    assert settled_layers(graph, shapes) == frozenset()
