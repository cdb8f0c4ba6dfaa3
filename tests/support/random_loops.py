# SPDX-License-Identifier: Apache-2.0
"""Random loops: a `Loop` or `Scan` whose body moves, mixes and combines states, between dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
from onnx import GraphProto, TensorProto, helper
from random_drafts import Draft, Draw, Value
from random_layers import dense
from random_models import Case, finish

__all__ = ["loops"]

OPSETS = (17, 13, 18, 21, 11)
UNARY = ("Tanh", "Sigmoid", "Neg", "Softplus")


@st.composite
def loops(draw: Draw) -> Case:
    """Draw a model on (steps, N, 3): dense layers, a loop over the steps or a number of times, dense layers."""
    d = Draft(draw, draw(st.sampled_from(OPSETS)), draw(st.integers(0, 2**16)), dynamic=False)
    steps, batch, width = d.choose((3, 1)), d.choose((2, 1)), d.number(2, 6)
    x = d.input((batch, 3))
    sequence = dense(d, d.input((steps, batch, 3)), width)
    beside = dense(d, x, width)
    states = [_begin(d, x, (batch, width)) for _ in range(d.choose((1, 2)))]
    weights = [d.weight((width, width), width) for _ in range(2)]
    scans, collects = d.rarely(2), d.rarely(2)
    around, d.nodes = d.nodes, []
    taken = [Value(d.fresh("state"), (batch, width)) for _ in states]
    item = Value(d.fresh("item"), (batch, width))
    pool = [*taken, beside, *([item] if scans else [])]
    for _ in range(d.choose((1, 2, 3, 4))):
        pool.append(_step(d, pool, weights))
    given = [d.on("Identity", d.choose(pool[::-1])) for _ in range(len(states) + collects)]
    graph, d.nodes = _body(d, taken, given, item if scans else None), around
    ends = [Value(d.fresh("end"), (batch, width)) for _ in states]
    every = [Value(d.fresh("every"), (steps, batch, width))] if collects else []
    outputs = [value.name for value in (*ends, *every)]
    if scans:
        d.nodes.append(
            helper.make_node("Scan", [s.name for s in states] + [sequence.name], outputs, body=graph, num_scan_inputs=1)
        )
    else:
        limit = d.store(np.asarray(steps, dtype=np.int64))
        d.nodes.append(helper.make_node("Loop", [limit, "", *(s.name for s in states)], outputs, body=graph))
    return Case(finish(d, [dense(d, value, 2) for value in (*ends, *every)]), dynamic=False)


def _begin(d: Draft, x: Value, shape: Sequence[int]) -> Value:
    """Return what a state begins as: zeros, a stored value, or what a layer makes."""
    kind = d.choose(("layer", "zeros", "stored"))
    if kind == "layer":
        return dense(d, x, shape[-1])
    if kind == "zeros":
        return Value(d.store(np.zeros(shape, dtype=np.float32)), tuple(shape))
    return Value(d.vector(shape), tuple(shape))


def _step(d: Draft, pool: Sequence[Value], weights: Sequence[str]) -> Value:
    """Add an operator to the body."""
    x, width = d.choose(pool[::-1]), pool[0].shape[-1]
    kind = d.choose(("unary", "binary", "weight", "turn", "reverse", "sum"))
    if kind == "unary":
        return d.on(d.choose(UNARY), x)
    if kind == "binary":
        return d.on(d.choose(("Add", "Mul", "Sub")), x, d.choose(pool))
    if kind == "weight":
        return d.on("Tanh", d.on("MatMul", x, d.choose(weights)))
    if kind == "sum":
        total = d.sized("ReduceSum", x, (*x.shape[:-1], 1), "axes", [-1], since=13, keepdims=1)
        return d.on("Mul", x, d.on("Sigmoid", total))
    order = list(range(width))
    return d.on("Gather", x, d.ints(order[1:] + order[:1] if kind == "turn" else order[::-1]), axis=1)


def _body(d: Draft, taken: Sequence[Value], given: Sequence[Value], item: Value | None) -> GraphProto:
    """Return the nodes of a draft as a body; that of a `Loop` where no item is taken from a sequence."""
    inputs, outputs = [_declared(value) for value in taken], [_declared(value) for value in given]
    if item is not None:
        inputs.append(_declared(item))
    else:
        on = d.fresh("on")
        d.nodes.append(helper.make_node("Identity", [f"{on}_before"], [on]))
        turn = helper.make_tensor_value_info(f"{on}_turn", TensorProto.INT64, [])
        inputs = [turn, helper.make_tensor_value_info(f"{on}_before", TensorProto.BOOL, []), *inputs]
        outputs = [helper.make_tensor_value_info(on, TensorProto.BOOL, []), *outputs]
    return helper.make_graph(d.nodes, "body", inputs, outputs)


def _declared(value: Value) -> Any:
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, list(value.shape))
