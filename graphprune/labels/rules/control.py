# SPDX-License-Identifier: Apache-2.0
"""Control flow, whose bodies are laid out in the graph around it (see `model.bodies`).

What both branches give keeps the same slices in both. What a loop hands on from one iteration to the next stays whole;
inside of bodies channels are pruned like anywhere else.
"""

from __future__ import annotations

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.model.bodies import DOMAIN

__all__: list[str] = []


@rule("If", domain=DOMAIN)
def if_(op: Operator) -> None:
    """A result is what the one or the other branch gives: both keep the same slices of it.

    Inputs are the condition, then the results of the one branch and those of the other.
    """
    count = len(op.node.outputs)
    for result, name in enumerate(op.node.outputs):
        one, other = 1 + result, 1 + count + result
        if name and op.shape(one) == op.shape(other) == op.out_shape(result):
            for first, second in zip(op.labels(one), op.labels(other), strict=True):
                op.unite(first, second)
            op.set(result, (a if not b.live else b for a, b in zip(op.labels(one), op.labels(other), strict=True)))
        else:
            for slot in (one, other):
                op.freeze(
                    op.labels(slot), "control flow", "is the result of a branch, of which the other has another shape"
                )


@rule("Loop", "Scan", domain=DOMAIN, blind=True)
def loop(op: Operator) -> None:
    """What a loop begins with, what its body gives and what comes out stays whole."""
    op.barrier("control flow", "is a state or a result of a loop")


@rule("LoopEntry", "ScanEntry", domain=DOMAIN, blind=True)
def entry(op: Operator) -> None:
    """What the body is given at each turn stays whole."""
    op.barrier("control flow", "is handed on from turn to turn")
