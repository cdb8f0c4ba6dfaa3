# SPDX-License-Identifier: Apache-2.0
"""The integer program that the dual leaves open: one row of each bag, the costs within their limits, solved by HiGHS.

Bags agree on what they share as flows agree at a junction. Without the limits the relaxation of this program would have
integral corners, so with them it proves exactly what the Lagrangian dual proves; a formulation by levels and products
proves less and is larger. Rows that cannot belong to a better solution are gone before, and few are left.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.solvers.bounds.propagation import flat_places

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from graphprune.array_types import Floats
    from graphprune.solvers.bounds.decomposition import Tree


__all__ = ["TOLERANCE", "IntegerResult", "solve"]

TOLERANCE = 1e-7  # relative error granted to the bound of HiGHS, whose own tolerances are 1e-6 of reduced costs

_SCALE = 1e2  # what a limit is in the program: HiGHS allows 1e-6 more. Much larger figures make it repair what it finds
_STOPS = {0: "optimal", 1: "time limit", 2: "infeasible"}


@dataclass(frozen=True, eq=False)
class IntegerResult:
    """What HiGHS found.

    Attributes
    ----------
    states : ndarray of int64, optional
        Of all variables, if there are any.
    bound : float
        No states of the tree within the limits are worth more.
    stopped : {"optimal", "time limit", "node limit", "infeasible", "error"}
        Why it stopped.
    nodes : int
        Nodes of its search tree.
    """

    states: npt.NDArray[np.int64] | None
    bound: float
    stopped: str
    nodes: int


def solve(tree: Tree, time_limit: float, node_limit: int) -> IntegerResult:
    """Return the best states of a tree within the limits of its network.

    HiGHS runs with its fixed default seed, so the outcome repeats unless the time limit ends it.

    Parameters
    ----------
    tree : Tree
    time_limit : float
        Seconds, more than 0.
    node_limit : int
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    first = np.cumsum([0, *(bag.columns.shape[1] for bag in tree.bags)])
    worth, costs = _totals(tree)
    constraints = [LinearConstraint(*_junctions(tree, first))]
    if tree.network.restrictions:
        room = np.array([entry.limit - entry.constant for entry in tree.network.restrictions])
        scale = _SCALE / np.maximum(1.0, [entry.limit for entry in tree.network.restrictions])
        constraints.append(LinearConstraint(costs * scale[:, None], -np.inf, room * scale))
    with _silenced():
        solution: Any = milp(
            -worth,
            integrality=np.ones(len(worth), dtype=np.int64),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": time_limit, "node_limit": node_limit, "mip_rel_gap": 1e-9},
        )
    nodes = int(getattr(solution, "mip_node_count", None) or 0)
    # scipy has no status for the node limit.
    stopped = _STOPS.get(int(solution.status), "node limit" if nodes >= node_limit else "error")
    dual = getattr(solution, "mip_dual_bound", None)
    bound = -np.inf if stopped == "infeasible" else np.inf if dual is None else -float(dual)
    states = None if solution.x is None else _states(tree, solution.x)
    return IntegerResult(states, bound, stopped, nodes)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep apart from our output what HiGHS writes to the process's standard output when it repairs a solution."""
    try:
        ours = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(ours, 1)
        os.close(ours)


def _totals(tree: Tree) -> tuple[Floats, Floats]:
    """Return what each row is worth, and what it costs by each restriction: shapes (rows,) and (restrictions, rows)."""
    network = tree.network
    worth, costs = [], []
    for bag in tree.bags:
        rows = bag.columns.shape[1]
        value, cost = np.zeros(rows), np.zeros((len(network.restrictions), rows))
        for scope in bag.scopes:
            place = flat_places(network, bag, scope)
            if len(scope) == 1 and scope[0] < len(network.values):
                value += network.values[scope[0]][place]
            for number, restriction in enumerate(network.restrictions):
                if scope in restriction.tables:
                    cost[number] += restriction.tables[scope].ravel()[place]
        worth.append(value)
        costs.append(cost)
    return np.concatenate(worth), np.concatenate(costs, axis=1)


def _junctions(tree: Tree, first: npt.NDArray[np.int64]) -> tuple[Any, Floats, Floats]:
    """Return the constraints that one row of each root is taken, and for each key as many rows below as above."""
    from scipy.sparse import coo_array

    lines, columns, entries = [], [], []
    right: list[float] = []
    for number, bag in enumerate(tree.bags):
        rows = np.arange(bag.columns.shape[1])
        if bag.parent < 0:
            lines.append(np.full(len(rows), len(right)))
            columns.append(first[number] + rows)
            entries.append(np.ones(len(rows)))
            right.append(1.0)
            continue
        key = np.repeat(np.arange(len(bag.starts)), np.diff(np.append(bag.starts, len(rows))))
        above = np.flatnonzero(bag.above >= 0)
        lines += [len(right) + key, len(right) + bag.above[above]]
        columns += [first[number] + rows, first[bag.parent] + above]
        entries += [np.ones(len(rows)), -np.ones(len(above))]
        right += [0.0] * len(bag.starts)
    matrix: Any = (np.concatenate(entries), (np.concatenate(lines), np.concatenate(columns)))
    bounds = np.array(right)
    return coo_array(matrix, shape=(len(right), int(first[-1]))).tocsr(), bounds, bounds


def _states(tree: Tree, taken: Floats) -> npt.NDArray[np.int64]:
    """Return the states of the rows that are taken."""
    states = np.zeros(len(tree.network.domains), dtype=np.int64)
    first = 0
    for bag in tree.bags:
        rows = bag.columns.shape[1]
        states[list(bag.scope)] = bag.columns[:, int(np.argmax(taken[first : first + rows]))]
        first += rows
    return states
