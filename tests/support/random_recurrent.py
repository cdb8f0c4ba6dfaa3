# SPDX-License-Identifier: Apache-2.0
"""Random recurrent networks: stacked `LSTM`, `GRU` and `RNN` layers between dense ones."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from onnx import helper
from random_drafts import Draft, Draw, Value
from random_layers import dense
from random_models import Case, finish

__all__ = ["recurrent"]

OPSETS = (17, 13, 14, 18, 21, 11)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@st.composite
def recurrent(draw: Draw) -> Case:
    """Draw a model of some recurrent layers on (steps, N, features)."""
    d = Draft(draw, draw(st.sampled_from(OPSETS)), draw(st.integers(0, 2**16)), dynamic=False)
    steps, batch = d.choose((3, 1)), d.choose((2, 1))
    x = d.input((steps, batch, 3))
    if d.rarely(2):
        x = d.on("Tanh", dense(d, x, d.number(2, 5)))
    ends: list[Value] = []
    for _ in range(d.choose((1, 2))):
        sequence, state = _layer(d, x)
        joined = _joined(d, sequence)
        x = d.node("Add", [joined, x], x.shape) if joined.shape == x.shape and d.rarely(2) else joined
        if d.rarely(3):
            ends.append(dense(d, _last(d, state), 2))
        if d.rarely(3):
            x = dense(d, x, d.number(2, 5))
    ends.append(dense(d, x, 2))
    return Case(finish(d, ends), dynamic=False)


def _layer(d: Draft, x: Value) -> tuple[Value, Value]:
    """Add a recurrent layer; returns its outputs of all steps, and its last state."""
    op, hidden = d.choose(("LSTM", "GRU", "RNN")), d.number(2, 5)
    direction = d.choose(("forward", "bidirectional", "reverse"))
    count, gates = 2 if direction == "bidirectional" else 1, GATES[op]
    steps, batch, features = x.shape
    inputs = [
        x.name,
        d.weight((count, gates * hidden, features), features),
        d.weight((count, gates * hidden, hidden), hidden),
    ]
    optional = [
        d.vector((count, 2 * gates * hidden)) if d.rarely(2) else "",
        d.store(np.asarray([steps] * batch, dtype=np.int32)) if d.rarely(4) else "",
        *(_start(d, (count, batch, hidden)) for _ in range(2 if op == "LSTM" else 1)),
    ]
    if op == "LSTM":
        optional.append(d.vector((count, 3 * hidden)) if d.rarely(4) else "")
    while optional and not optional[-1]:
        optional.pop()
    attributes = {"linear_before_reset": d.choose((0, 1))} if op == "GRU" else {}
    sequence = Value(d.fresh(op.lower()), (steps, count, batch, hidden))
    state = Value(d.fresh("state"), (count, batch, hidden))
    names = [sequence.name, state.name]
    node = helper.make_node(
        op, [*inputs, *optional], names, name=d.fresh("node"), hidden_size=hidden, direction=direction, **attributes
    )
    d.nodes.append(node)
    return sequence, state


def _start(d: Draft, shape: tuple[int, ...]) -> str:
    """Return an initial state: none, zeros, or a learned one."""
    kind = d.choose(("none", "zeros", "learned"))
    if kind == "none":
        return ""
    return d.store(np.zeros(shape, dtype=np.float32)) if kind == "zeros" else d.vector(shape)


def _joined(d: Draft, y: Value) -> Value:
    """Put the directions of (steps, directions, N, hidden) side by side."""
    steps, count, batch, hidden = y.shape
    if count == 1 and d.rarely(2):
        return d.sized("Squeeze", y, (steps, batch, hidden), "axes", [1], 13)
    moved = d.node("Transpose", [y], (steps, batch, count, hidden), perm=[0, 2, 1, 3])
    return d.reshape(moved, (steps, batch, count * hidden))


def _last(d: Draft, state: Value) -> Value:
    """Turn the last state (directions, N, hidden) into features (N, directions * hidden)."""
    count, batch, hidden = state.shape
    moved = d.node("Transpose", [state], (batch, count, hidden), perm=[1, 0, 2])
    return d.reshape(moved, (batch, count * hidden))
