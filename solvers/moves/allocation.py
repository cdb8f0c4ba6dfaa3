# SPDX-License-Identifier: Apache-2.0
"""Allocation: widths with the least sum of measured errors within all limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.solvers.moves.exchange import exchange
from graphprune.solvers.moves.stairs import Stairs
from graphprune.solvers.moves.trim import trim

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from graphprune.solvers.problem import Problem

__all__ = ["allocate"]

_NODES = 200  # of the search tree of HiGHS: what is measured is not so exact that more would pay
_SECONDS = 600.0  # far more than so many nodes take
_ROUNDS = 3


def allocate(problem: Problem, errors: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.int64]:
    """Choose one level per group so that all limits hold and the sum of errors is small: a multiple-choice knapsack.

    A Lagrangian dual over a tree decomposition of the groups (:mod:`graphprune.solvers.bounds`) gives the best widths,
    or good ones that HiGHS improves; where the groups are coupled too closely for that, steps are exchanged.

    Parameters
    ----------
    problem : Problem
        Whose narrowest levels are within the limits.
    errors : sequence of ndarray of float64
        Per group the error of each of its levels, non-increasing.

    Returns
    -------
    ndarray of int64, shape (groups,)
        From which no step is left that fits.
    """
    from graphprune.solvers.bounds.search import Search

    values = [-own for own in errors]
    search, stairs = Search(problem, values), Stairs(problem, values)
    for widths in (problem.narrowest, trim(problem, problem.widest, stairs)):
        search.offer(widths)
    tree = None if search.closed else search.relax()
    if tree is not None and not search.closed:
        search.finish(tree, _SECONDS, _NODES)
    if search.closed:
        return search.widths
    return exchange(problem, search.widths, _ROUNDS, stairs)[0]
