# SPDX-License-Identifier: Apache-2.0
"""Propagation: the states of a tree's variables that are worth most at given prices, by dynamic programming.

Each bag tells its parent, for each key that they share, what the best of everything below is worth; the roots know the
maximum. Going back down, each row learns what the best states are worth that contain it. Exact for any tables, in time
proportional to the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from graphprune.array_types import Floats
    from graphprune.solvers.bounds.decomposition import Bag, Tree
    from graphprune.solvers.bounds.factors import Network, Scope


__all__ = ["Best", "Propagation", "flat_places"]


@dataclass(frozen=True, eq=False)
class Best:
    """What is worth most at some prices.

    Attributes
    ----------
    worth : float
        Value less priced costs.
    states : ndarray of int64
        Of all variables.
    """

    worth: float
    states: npt.NDArray[np.int64]


class Propagation:
    """Repeated maximisation over the rows of one tree, at different prices."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._network = tree.network
        self._below: list[list[int]] = [[] for _ in tree.bags]
        for number, bag in enumerate(tree.bags):
            if bag.parent >= 0:
                self._below[bag.parent].append(number)
        self._places = [[(scope, flat_places(self._network, bag, scope)) for scope in bag.scopes] for bag in tree.bags]
        self._beliefs: list[Floats] = []
        self._messages: list[Floats] = []

    def best(self, prices: Floats) -> Best:
        """Return the states with the largest value less costs at `prices`, one for each restriction."""
        bags = self._tree.bags
        tables = self._priced(prices)
        self._beliefs = [
            sum((tables[scope][place] for scope, place in places), np.zeros(bag.columns.shape[1]))
            for bag, places in zip(bags, self._places, strict=True)
        ]
        self._messages = [np.zeros(0)] * len(bags)
        worth = 0.0
        for number in reversed(range(len(bags))):
            bag, belief = bags[number], self._beliefs[number]
            if bag.parent < 0:
                worth += float(belief.max(initial=-np.inf))
                continue
            message = np.maximum.reduceat(belief, bag.starts) if len(belief) else belief
            self._messages[number] = np.append(message, -np.inf)[bag.above]
            self._beliefs[bag.parent] += self._messages[number]
        constant = sum(
            price * restriction.constant for price, restriction in zip(prices, self._network.restrictions, strict=True)
        )
        states = self._states() if np.isfinite(worth) else np.zeros(0, dtype=np.int64)
        return Best(worth - constant, states)

    def margins(self) -> list[Floats]:
        """Return for each row of each bag what the best states with it are worth less than the best of all.

        At the last prices; 0 or less, -inf for a row that cannot occur.
        """
        bags = self._tree.bags
        margins: list[Floats] = []
        for number, bag in enumerate(bags):
            belief = self._beliefs[number]
            if bag.parent < 0:
                margins.append(belief - belief.max(initial=-np.inf))
                continue
            # What the best states outside are worth, by key: the parent's margin without what came from here.
            with np.errstate(invalid="ignore"):
                outside = margins[bag.parent] - self._messages[number]
            best = np.full(len(bag.starts) + 1, -np.inf)
            np.fmax.at(best, bag.above, outside)
            counts = np.diff(np.append(bag.starts, len(belief)))
            margins.append(belief + np.repeat(best[:-1], counts))
        return margins

    def _states(self) -> npt.NDArray[np.int64]:
        """Return the best states, from the roots down."""
        bags = self._tree.bags
        states = np.zeros(len(self._network.domains), dtype=np.int64)
        chosen = [0] * len(bags)
        for number, bag in enumerate(bags):
            first, last = 0, bag.columns.shape[1]
            if bag.parent >= 0:
                key = int(bag.above[chosen[bag.parent]])
                first = int(bag.starts[key])
                last = int(bag.starts[key + 1]) if key + 1 < len(bag.starts) else last
            chosen[number] = first + int(np.argmax(self._beliefs[number][first:last]))
            states[list(bag.scope)] = bag.columns[:, chosen[number]]
        return states

    def _priced(self, prices: Floats) -> dict[Scope, Floats]:
        """Return value less priced costs as flat tables by scope."""
        network = self._network
        tables: dict[Scope, Floats] = {(group,): values.copy() for group, values in enumerate(network.values)}
        for price, restriction in zip(prices, network.restrictions, strict=True):
            for scope, table in restriction.tables.items():
                if price and scope in tables:
                    tables[scope] = tables[scope] - price * table.ravel()
                elif price:
                    tables[scope] = -price * table.ravel()
        for scope in network.scopes - tables.keys():
            tables[scope] = np.zeros(prod(network.shape(scope)))
        return tables


def flat_places(network: Network, bag: Bag, scope: Scope) -> npt.NDArray[np.int64]:
    """Return the place of each row of a bag in a flat table over `scope`."""
    columns = tuple(bag.columns[bag.scope.index(variable)] for variable in scope)
    return np.asarray(np.ravel_multi_index(columns, network.shape(scope)), dtype=np.int64)
