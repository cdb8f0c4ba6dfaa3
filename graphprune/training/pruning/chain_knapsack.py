# SPDX-License-Identifier: Apache-2.0
"""A multiple-choice knapsack along a chain: one candidate per stage, the least total loss within a budget.

What a stage costs depends on the widths at its border, so the state of the dynamic program is what crosses the border,
beside the cost so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Candidate", "combine"]

State = tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """One way in which a stage may come out.

    Parameters
    ----------
    widths : tuple of int
        Of the groups of the stage.
    loss : float
        What it loses.
    """

    widths: tuple[int, ...]
    loss: float


def combine(
    stages: Sequence[Sequence[Candidate]],
    cost: Callable[[int, State, Candidate], tuple[int, State]],
    budget: int,
    buckets: int = 1000,
) -> tuple[int, ...] | None:
    """Choose a candidate for every stage.

    Parameters
    ----------
    stages : sequence of sequence of Candidate
    cost : callable
        Takes the number of a stage, the state at its entry and a candidate; returns the cost of the stage and the state
        at its exit. The state at the first entry is empty.
    budget : int
        Largest sum of costs.
    buckets : int
        Of two partial choices with the same state whose costs fall into the same one of so many parts of the budget,
        the one with the lower loss lives on (the cheaper one of equals). Costs themselves are not rounded.

    Returns
    -------
    tuple of int or None
        Number of the candidate of each stage; None where nothing fits.

    Complexity: O(stages * states * buckets * candidates).
    """
    width = max(1, budget // buckets)
    alive: dict[tuple[State, int], tuple[float, int, tuple[int, ...]]] = {((), 0): (0.0, 0, ())}
    for number, candidates in enumerate(stages):
        following: dict[tuple[State, int], tuple[float, int, tuple[int, ...]]] = {}
        for (state, _), (loss, spent, chosen) in alive.items():
            for index, candidate in enumerate(candidates):
                own, after = cost(number, state, candidate)
                if spent + own > budget:
                    continue
                entry = (loss + candidate.loss, spent + own, (*chosen, index))
                key = after, entry[1] // width
                if key not in following or entry < following[key]:
                    following[key] = entry
        alive = following
    return min(alive.values())[2] if alive else None
