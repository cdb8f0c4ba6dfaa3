# SPDX-License-Identifier: Apache-2.0
"""`LSTM`, `GRU` and `RNN`: hidden units are channels.

A hidden unit has one row per gate in W and R, one entry per gate in the biases, one column of R
and one slice of every output. Both directions share the axis of hidden units, so a unit lives
or dies in both.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graphprune.labels.adapt import Edits, Pruned, adapter, whole
from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.space import Axes
from graphprune.labels.vector import Labels, stay

_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
_PEEPHOLES = 3
_STATES = (5, 6)


@rule("GRU", "LSTM", "RNN")
def recurrent(op: Operator) -> None:
    """X is contracted with W, and the hidden state, which is not to be had outside, with the last axis of R.

    Everything else, whatever the activations are, treats each hidden unit on its own: a removed
    unit is masked by zeroing its column of R.
    """
    gates, first = _GATES[op.node.op_type], op.node.attribute("layout", 0)
    x = op.labels(0)
    steps, batch = (x[1], x[0]) if first else (x[0], x[1])
    op.freeze(steps, op.node.op_type, "runs along this axis")
    w, r = op.operand(1, ("", "out", "in")), op.operand(2, ("", "out", "in"))
    op.freeze((w[0], r[0]), op.node.op_type, "is an axis of directions")
    hidden = r[2]
    for rows in (w[1], r[1]):
        op.unite(rows, _tiled(hidden, gates))
    op.unite(x[2], w[2])
    op.contract(0, 2)
    op.contract(1, 2)
    if op.is_constant(2):
        op.contract_weight(2, 2, hidden)
    else:
        op.contract(2, 2)
    directions, steps = stay(len(r[0])), stay(len(steps))
    _follow(op, hidden, batch, directions)
    op.cost((directions, steps, batch), x[2], hidden, gates)
    op.cost((directions, steps, batch), hidden, hidden, gates)
    y = (batch, steps, directions, hidden) if first else (steps, directions, batch, hidden)
    for slot, axes in enumerate((y, *[_state(op, hidden, batch, directions)] * 2)):
        if slot < len(op.node.outputs) and op.node.outputs[slot]:
            op.set(slot, axes)


def _follow(op: Operator, hidden: Labels, batch: Labels, directions: Labels) -> None:
    """Biases, sequence lengths, initial states and peepholes follow; a computed state of zeros is left out instead."""
    if op.has(3):
        op.tie(3, (directions, _tiled(hidden, 2 * _GATES[op.node.op_type])))
    if op.has(4):
        op.tie(4, (batch,))
    for slot in _STATES:
        if op.has(slot) and (_is_stored(op, slot) or not _is_zero(op.array(slot))):
            op.tie(slot, _state(op, hidden, batch, directions))
    if op.has(7):
        op.tie(7, (directions, _tiled(hidden, _PEEPHOLES)))


def _state(op: Operator, hidden: Labels, batch: Labels, directions: Labels) -> Axes:
    """Axes of a hidden state."""
    return (batch, directions, hidden) if op.node.attribute("layout", 0) else (directions, batch, hidden)


def _tiled(hidden: Labels, times: int) -> Labels:
    """One stretch of hidden units per gate."""
    return Labels(hidden.base, hidden.repeat, hidden.tile * times)


def _is_stored(op: Operator, slot: int) -> bool:
    constants = op.scope.constants
    return op.is_constant(slot) and constants.stored(constants.trace(op.inputs[slot]).tensor) is not None


def _is_zero(value: npt.NDArray[np.generic] | None) -> bool:
    return value is not None and not value.any()


@adapter("GRU", "LSTM", "RNN", slots=_STATES, attributes=("hidden_size",))
def adapt_recurrent(op: Pruned) -> Edits:
    """Fewer hidden units; initial states of zeros that exporters compute at full size are the default and go."""
    kept = op.kept(2)[2]
    edits = Edits()
    if whole(kept):
        return edits
    if op.node.attribute("hidden_size") is not None:
        edits.attributes["hidden_size"] = int(kept.sum())
    edits.inputs.update((slot, None) for slot in _STATES if _is_zero(op.original(slot)) and whole(op.kept(slot)[-1]))
    return edits
