# SPDX-License-Identifier: Apache-2.0
"""Control flow, whose bodies are laid out in the graph around it (see `model.bodies`).

What a body gives, and what a loop hands on from turn to turn, stays whole; inside of bodies channels are
pruned like anywhere else.
"""

from __future__ import annotations

from graphprune.labels.operator import Operator
from graphprune.labels.registry import rule
from graphprune.model.bodies import DOMAIN

__all__: list[str] = []


@rule("If", domain=DOMAIN)
def if_(op: Operator) -> None:
    """What a branch gives stays whole."""
    op.barrier("control flow", "is the result of a branch")


@rule("Loop", "Scan", domain=DOMAIN, blind=True)
def loop(op: Operator) -> None:
    """What a loop begins with, what its body gives and what comes out stays whole."""
    op.barrier("control flow", "is a state or a result of a loop")


@rule("LoopEntry", "ScanEntry", domain=DOMAIN, blind=True)
def entry(op: Operator) -> None:
    """What the body is given at each turn stays whole."""
    op.barrier("control flow", "is handed on from turn to turn")
