# SPDX-License-Identifier: Apache-2.0
"""Control flow, whose bodies are laid out in the graph around it (see `model.bodies`).

What both branches give keeps the same slices in both. A state of a loop keeps the same slices where it begins, where
the body takes and gives it, and where it comes out: at every turn the body then makes of the kept channels what it made
of them before, by the rules of its own operators. What is taken apart or put together stays whole along that axis.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.labels.space import Axes
from graphprune.labels.vector import stay
from graphprune.model.values.bodies import DOMAIN
from graphprune.model.values.iterations import Collected, LoopNode, Scanned, State

__all__: list[str] = []

_KIND = "control flow"


@rule("If", domain=DOMAIN)
def if_(op: Operator) -> None:
    """A result is what the one or the other branch gives: both keep the same slices of it.

    Inputs are the condition, then the results of the one branch and those of the other.
    """
    count = len(op.node.outputs)
    for result, name in enumerate(op.node.outputs):
        slots = 1 + result, 1 + count + result
        if not name or not all(_longer(op.shape(slot)) == _longer(op.out_shape(result)) for slot in slots):
            for slot in slots:
                op.freeze(op.labels(slot), _KIND, "is the result of a branch, of which the other has another shape")
            continue
        # Branches differ in axes of length 1 where exporters wrote `squeeze` for any length.
        one, other = ([vector for vector in op.labels(slot) if len(vector) != 1] for slot in slots)
        for first, second in zip(one, other, strict=True):
            op.unite(first, second)
        longer = iter([a if not b.live else b for a, b in zip(one, other, strict=True)])
        op.set(result, (stay(1) if size == 1 else next(longer) for size in op.out_shape(result)))


def _longer(shape: Sequence[int]) -> list[int]:
    """Lengths of the axes that are longer than 1."""
    return [size for size in shape if size != 1]


@rule("LoopEntry", "ScanEntry", domain=DOMAIN, blind=True)
def entry(op: Operator) -> None:
    """What the body takes has the labels of what a state begins with, or of what is taken apart.

    The pseudo-operator has no inputs: what it hands on are inputs of the one behind the body.
    """
    loop = op.scope.loops[op.node.index]
    for state in loop.states:
        if _is_settled(op, loop, state):
            op.set(op.node.outputs.index(state.taken), _handed_on(op, state.begin))
    for scanned in loop.scanned:
        if scanned.tensor in op.scope.shapes.dims and scanned.taken in op.scope.shapes.dims:
            axes = list(_handed_on(op, scanned.tensor))
            del axes[scanned.axis]
            op.set(op.node.outputs.index(scanned.taken), axes)


@rule("Loop", "Scan", domain=DOMAIN, blind=True)
def exit_(op: Operator) -> None:
    """A state begins with, and is given back as, what the body takes; slices that are collected keep their labels."""
    loop = op.scope.loops[op.node.index]
    for state in loop.states:
        _return_state(op, loop, state)
    for scanned in loop.scanned:
        _take_apart(op, scanned)
    for collected in loop.collected:
        _put_together(op, collected)


def _handed_on(op: Operator, name: str) -> Axes:
    """Labels of an activation, or labels of their own for stored data."""
    shapes = op.scope.shapes
    if name in op.scope.values:
        return op.scope.values[name]
    stored = name in shapes.constant and name not in shapes.derived
    return tuple(op.space.fresh(size) if stored else stay(size) for size in shapes.dims[name])


def _is_settled(op: Operator, loop: LoopNode, state: State) -> bool:
    """Whether a state can lose slices: one shape at all turns, and no constant that the body gives."""
    shapes = op.scope.shapes
    return loop.keeps_shape(state, shapes) and state.given not in shapes.constant


def _return_state(op: Operator, loop: LoopNode, state: State) -> None:
    """Unite all that a state is, or keep it whole."""
    slots = state.begin_slot, state.given_slot
    if not _is_settled(op, loop, state):
        _keep(op, slots, "is a state of a loop that changes its shape from turn to turn, or is a constant after one")
        return
    axes = op.scope.values[state.taken]
    for slot in slots:
        op.tie(slot, axes)
    if state.end:
        op.set(state.end_slot, axes)


def _take_apart(op: Operator, scanned: Scanned) -> None:
    """Only the axis along which the scan runs is whole."""
    if scanned.taken not in op.scope.values or scanned.tensor not in op.scope.shapes.dims:
        _keep(op, (scanned.slot,), "is taken apart in slices of unknown shape")
        return
    axes = list(op.scope.values[scanned.taken])
    axis = scanned.axis % (len(axes) + 1)
    axes.insert(axis, stay(op.shape(scanned.slot)[axis]))
    if not op.is_constant(scanned.slot):
        op.freeze(op.labels(scanned.slot)[axis], _KIND, "is the axis along which a Scan runs")
    op.tie(scanned.slot, tuple(axes))


def _put_together(op: Operator, collected: Collected) -> None:
    """A slice per turn, stacked on an axis of its own."""
    dims = op.scope.shapes.dims
    if not collected.end:
        return
    if collected.end not in dims or collected.given not in dims:
        _keep(op, (collected.given_slot,), "is collected over a number of turns that is not known")
        return
    axes = list(op.labels(collected.given_slot))
    axis = collected.axis % (len(axes) + 1)
    axes.insert(axis, stay(dims[collected.end][axis]))
    op.set(collected.end_slot, axes)


def _keep(op: Operator, slots: Sequence[int], text: str) -> None:
    """Keep every slice of some inputs, as far as they are known."""
    for slot in slots:
        if op.has(slot) and op.inputs[slot] in op.scope.values:
            op.freeze(op.labels(slot), _KIND, text)
