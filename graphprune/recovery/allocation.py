# SPDX-License-Identifier: Apache-2.0
"""Allocation: widths with the least measured error within a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cost", "allocate"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SWEEPS = 20
_HALVINGS = 40


class Cost(Protocol):
    """A cost of the whole network; see :class:`graphprune.cost.Polynomial`."""

    def __call__(self, widths: Ints, /) -> int:
        """Return the cost at these widths."""
        ...

    def change(self, widths: Ints, group: int, width: int) -> int:
        """Return by how much the cost changes if one group takes another width."""
        ...


def allocate(errors: Sequence[Floats], levels: Sequence[Ints], cost: Cost, limit: int) -> Ints | None:
    """Choose one level per group so that the cost stays within a limit and the sum of errors is small.

    A multiplier on the cost is bisected, groups take their best level in turn; then single moves and exchanges
    of two groups improve the best point found until none does.

    Parameters
    ----------
    errors : sequence of ndarray
        Per group the error of each of its levels, non-increasing.
    levels : sequence of ndarray of int64, increasing
    cost : Cost
    limit : int

    Returns
    -------
    ndarray of int64 or None
        Widths; None if the smallest levels cost more than the limit.
    """
    smallest = np.array([each[0] for each in levels], dtype=np.int64)
    if cost(smallest) > limit:
        return None
    largest = np.array([each[-1] for each in levels], dtype=np.int64)
    if cost(largest) <= limit:
        return largest
    best, best_error = smallest, _total(errors, levels, smallest)
    low, high = -40.0, 10.0  # exponents: error per unit of cost
    scale = 1.0 / max(1, cost(largest))
    point = largest.copy()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        point = _descend(errors, levels, cost, scale * np.exp(middle), largest.copy())
        if cost(point) <= limit:
            high = middle
            error = _total(errors, levels, point)
            if error < best_error:
                best, best_error = point, error
        else:
            low = middle
    return _improve(errors, levels, cost, limit, best.copy())


def _total(errors: Sequence[Floats], levels: Sequence[Ints], widths: Ints) -> float:
    return float(sum(e[np.searchsorted(lv, w)] for e, lv, w in zip(errors, levels, widths, strict=True)))


def _changes(cost: Cost, levels: Sequence[Ints], widths: Ints, group: int) -> Ints:
    return np.array([cost.change(widths, group, int(width)) for width in levels[group]], dtype=np.int64)


def _descend(errors: Sequence[Floats], levels: Sequence[Ints], cost: Cost, price: float, widths: Ints) -> Ints:
    """Let groups take the level with the least error plus price times cost, one after the other, until none moves."""
    for _ in range(_SWEEPS):
        moved = False
        for group in range(len(levels)):
            at = int(np.argmin(errors[group] + price * _changes(cost, levels, widths, group)))
            if widths[group] != levels[group][at]:
                widths[group] = levels[group][at]
                moved = True
        if not moved:
            break
    return widths


def _improve(errors: Sequence[Floats], levels: Sequence[Ints], cost: Cost, limit: int, widths: Ints) -> Ints:
    """Make the best single move or exchange within the limit, until none lowers the error."""
    at = np.array([np.searchsorted(lv, w) for lv, w in zip(levels, widths, strict=True)], dtype=np.int64)
    while True:
        move = _best_move(errors, levels, cost, limit - cost(widths), (at, widths))
        if move is None:
            return widths
        for group, level in move:
            at[group] = level
            widths[group] = levels[group][level]


def _best_move(
    errors: Sequence[Floats], levels: Sequence[Ints], cost: Cost, room: int, state: tuple[Ints, Ints]
) -> list[tuple[int, int]] | None:
    """Return the single move, or narrowing of one group with widening of another, that lowers the error most."""
    at, widths = state
    best, gain = None, 1e-15
    options: list[tuple[int, int, int, float]] = []
    for group in range(len(levels)):
        changes = _changes(cost, levels, widths, group)
        for level in range(len(changes)):
            if level != at[group]:
                delta = float(errors[group][level] - errors[group][at[group]])
                options.append((group, level, int(changes[level]), delta))
                if changes[level] <= room and -delta > gain:
                    best, gain = [(group, level)], -delta
    narrower = sorted((o for o in options if o[2] < 0), key=lambda o: o[3])
    wider = sorted((o for o in options if o[3] < 0), key=lambda o: o[3])
    for down_group, down_level, saved, loss in narrower:
        if loss + wider[0][3] >= -gain if wider else True:
            break
        for up_group, up_level, spent, won in wider:
            if loss + won >= -gain:
                break
            if up_group == down_group or saved + spent > room + abs(spent):
                continue
            trial = widths.copy()
            trial[down_group] = levels[down_group][down_level]
            if saved + cost.change(trial, up_group, int(levels[up_group][up_level])) <= room:
                best, gain = [(down_group, down_level), (up_group, up_level)], -(loss + won)
                break
    return best
