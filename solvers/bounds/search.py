# SPDX-License-Identifier: Apache-2.0
"""The search: the best widths known of a problem, and what is proven of all widths, each helping the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.bounds import integer
from graphprune.solvers.bounds.decomposition import decompose
from graphprune.solvers.bounds.factors import networks
from graphprune.solvers.bounds.lagrangian import ROUNDING, minimize
from graphprune.solvers.fill import fill
from graphprune.solvers.moves.stairs import Stairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from graphprune.solvers.bounds.decomposition import Tree
    from graphprune.solvers.problem import Problem, TraceRecord

__all__ = ["Search"]

_MOST_ROWS = 6_000_000  # of a tree: some 100 bytes and 30 ns each, for every maximisation
_MOST_OPEN = 200_000  # rows that are given to HiGHS
_FIRST_NODES = 200


class Search:
    """What is known of a problem.

    Parameters
    ----------
    problem : Problem
        With scores on one scale.
    values : sequence of ndarray of float64, optional
        Per group, what each of its levels is worth; by default the saliency that it keeps.

    Attributes
    ----------
    widths : ndarray of int64, shape (groups,)
        The best widths known, within the limits and with no step left that fits.
    objective : float
        What they are worth.
    bound : float
        No widths within the limits are worth more.
    trace : list of dict
    """

    def __init__(self, problem: Problem, values: Sequence[npt.NDArray[np.float64]] | None = None) -> None:
        self._problem = problem
        self._stairs = Stairs(problem, values)
        self._seen: set[bytes] = set()
        self.trace: list[TraceRecord] = []
        most = float(sum(values.max() for values in self._stairs.values))
        self.bound = most + ROUNDING * abs(most)
        self.widths = problem.narrowest
        self.objective = -np.inf

    @property
    def closed(self) -> bool:
        """Whether the best widths known are the best there are, to rounding."""
        return self.bound <= self.objective + 4 * ROUNDING * abs(self.objective)

    def offer(self, widths: npt.NDArray[np.int64]) -> None:
        """Fill up widths, if they are within the limits, and remember them if they keep more than those known."""
        if widths.tobytes() in self._seen or not self._problem.fits(widths):
            return
        self._seen.add(widths.tobytes())
        filled = fill(self._problem, widths, self._stairs)
        objective = self._stairs.kept(filled)
        if objective > self.objective:
            self.widths, self.objective = filled, objective

    def relax(self) -> Tree | None:
        """Find the Lagrangian dual; return the tree it was found on, with the rows that are still open.

        Returns
        -------
        Tree or None
            None where every tree is too large.
        """
        tree = decompose(networks(self._problem, self._stairs.values), _MOST_ROWS)
        if tree is None:
            self.trace.append({"stage": "dual", "stopped": "too large"})
            return None
        for metric in tree.network.ignored:
            self.trace.append({"stage": "relaxation", "without": metric})
        self._pass(tree)
        return tree

    def finish(self, tree: Tree, time_limit: float, node_limit: int) -> None:
        """Solve what is still open with HiGHS; what a first look of a few nodes finds makes less of it."""
        first = min(node_limit, _FIRST_NODES)
        started = time.monotonic()
        for nodes in (first, node_limit - first):
            left = time_limit - (time.monotonic() - started)
            if self.closed or not nodes or left <= 0 or tree.rows > _MOST_OPEN:
                break
            known = self.objective
            outcome = integer.solve(tree, left, nodes)
            if outcome.states is not None:
                self._visit(outcome.states)
            self._lower(outcome.bound + integer.TOLERANCE * abs(outcome.bound))
            self._record("highs", rows=tree.rows, nodes=outcome.nodes, stopped=outcome.stopped)
            if outcome.stopped != "node limit":
                return
            if self.objective > known:
                self._pass(tree)
        if tree.rows > _MOST_OPEN:
            self._record("highs", rows=tree.rows, nodes=0, stopped="too large")

    def _visit(self, states: npt.NDArray[np.int64]) -> float:
        """Offer the widths of some states; return what the best widths known keep."""
        levels = self._problem.levels
        self.offer(np.array([own[state] for own, state in zip(levels, states, strict=False)], dtype=np.int64))
        return self.objective

    def _pass(self, tree: Tree) -> None:
        """Take over what the dual proves, and drop the rows that belong to no better solution."""
        rows, dual = tree.rows, minimize(tree, self._visit)
        self._lower(dual.bound)
        self._record("dual", rows=rows, evaluations=dual.evaluations)
        if not self.closed:
            tree.keep(margin + dual.bound > self.objective for margin in dual.propagation.margins())

    def _record(self, stage: str, **facts: int | str) -> None:
        self.trace.append({"stage": stage, **facts, "objective": float(self.objective), "bound": float(self.bound)})

    def _lower(self, bound: float) -> None:
        """Lower the bound to one of all solutions that are better than the best known."""
        self.bound = min(self.bound, max(float(bound), self.objective + ROUNDING * abs(self.objective)))
