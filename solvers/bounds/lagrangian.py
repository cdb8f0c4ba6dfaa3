# SPDX-License-Identifier: Apache-2.0
"""The Lagrangian dual: prices of the limited costs at which even the best widths are worth little.

Whatever the prices, no widths within the limits keep more saliency than the best widths of all are worth once costs are
charged and the limits refunded. Each maximisation gives one such bound, and a line under which the dual function does
not run; the lowest point that all lines allow is where the next one is asked for (Kelley's cutting planes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.bounds.propagation import Propagation

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from graphprune.array_types import Floats
    from graphprune.solvers.bounds.decomposition import Tree

    States = npt.NDArray[np.int64]

__all__ = ["ROUNDING", "Dual", "minimize"]

ROUNDING = 1e-9  # relative error granted to floating-point sums, several thousand times what they make
_CLOSE = 1e-6  # how near to the lowest point of the dual is near enough, relative
_HIGHEST_PRICE = 1e5  # of using up a whole limit, in units of all the saliency there is


@dataclass(eq=False)
class Dual:
    """The dual of a tree's network, as far as it is known.

    Attributes
    ----------
    bound : float
        No widths of the network within its limits are worth more.
    prices : ndarray of float64
        Where the bound is attained.
    propagation : Propagation
        Of the tree, last asked at `prices`.
    evaluations : int
        How many maximisations it took.
    """

    bound: float
    prices: Floats
    propagation: Propagation
    evaluations: int = 0
    lines: list[tuple[float, Floats]] = field(default_factory=list)


def minimize(tree: Tree, visit: Callable[[States], float], most: int = 60, start: Floats | None = None) -> Dual:
    """Return the dual of a tree near its lowest point.

    Parameters
    ----------
    tree : Tree
    visit : callable
        Is given the states of each maximum, and returns the value of the best solution known: a bound that is not
        above it is not improved further.
    most : int
        The most maximisations.
    start : ndarray, optional
        Prices to begin with.
    """
    network, propagation = tree.network, Propagation(tree)
    count = len(network.restrictions)
    total = float(sum(max(0.0, values.max()) for values in network.values))
    scales = np.array([max(1.0, restriction.limit) for restriction in network.restrictions])
    dual = Dual(total * (1 + ROUNDING), np.zeros(count), propagation)
    least = np.zeros(len(network.domains), dtype=np.int64)
    dual.lines.append(_line(tree, least))
    highest = _HIGHEST_PRICE * max(total, 1e-300) / scales
    prices = np.zeros(count) if start is None else start
    last = prices
    for _ in range(most):
        best = propagation.best(prices)
        dual.evaluations += 1
        last = prices
        worth = best.worth + _refund(tree, prices)
        bound = worth + ROUNDING * (total + _refund(tree, prices))
        if bound < dual.bound or dual.evaluations == 1:
            dual.bound, dual.prices = min(bound, dual.bound), prices
        if not len(best.states):
            dual.bound = -np.inf
            return dual
        known = visit(best.states)
        dual.lines.append(_line(tree, best.states))
        lowest, prices = _lowest(dual.lines, scales, highest)
        if dual.bound <= known or dual.bound - lowest <= _CLOSE * max(abs(dual.bound), 1e-300) or not count:
            break
    if last is not dual.prices:
        propagation.best(dual.prices)
    return dual


def _refund(tree: Tree, prices: Floats) -> float:
    return float(sum(price * entry.limit for price, entry in zip(prices, tree.network.restrictions, strict=True)))


def _line(tree: Tree, states: States) -> tuple[float, Floats]:
    """Return what states are worth without prices, and by how much they stay below each limit."""
    restrictions = tree.network.restrictions
    return tree.network.value(states), np.array([entry.limit - entry.cost(states) for entry in restrictions])


def _lowest(lines: list[tuple[float, Floats]], scales: Floats, highest: Floats) -> tuple[float, Floats]:
    """Return the lowest point on or above all lines, its height and its prices."""
    count = len(scales)
    slopes = np.array([room / scales for _, room in lines])
    heights = np.array([value for value, _ in lines])
    if not count:
        return float(heights.max()), np.zeros(0)
    if count == 1:
        height, price = _lowest_of_one(heights, slopes[:, 0], float(highest[0] * scales[0]))
        return height, np.array([price], dtype=np.float64) / scales
    # Minimise h subject to h >= value + room . prices, with prices in units of whole limits.
    matrix = np.hstack([slopes, -np.ones((len(lines), 1))])
    from scipy.optimize import linprog

    limits = [*((0.0, float(top)) for top in highest * scales), (None, None)]
    minimum = linprog(np.append(np.zeros(count), 1.0), A_ub=matrix, b_ub=-heights, bounds=limits, method="highs")
    if not minimum.success:
        return -np.inf, np.zeros(count)
    point = np.asarray(minimum.x, dtype=np.float64)
    return float(point[-1]), np.maximum(point[:-1], 0.0) / scales


def _lowest_of_one(heights: Floats, slopes: Floats, highest: float) -> tuple[float, float]:
    """Return the lowest point on or above lines over one price: it is at an end, or where two lines cross."""
    apart = slopes[:, None] - slopes
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = (heights - heights[:, None]) / apart
    prices = np.unique([0.0, highest, *crossings[(apart > 0) & (crossings > 0) & (crossings < highest)]])
    envelope = (heights + prices[:, None] * slopes).max(axis=1)
    at = int(np.argmin(envelope))
    return float(envelope[at]), float(prices[at])
