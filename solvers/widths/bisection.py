# SPDX-License-Identifier: Apache-2.0
"""Bisection: every group keeps a share of its atoms in proportion to its importance (AdaPruner)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.moves.path import solve_on_path
from graphprune.solvers.widths import solver

if TYPE_CHECKING:
    from graphprune.solvers.problem import Problem, Solution

__all__ = ["solve"]


@solver("bisection")
def solve(problem: Problem, *, exponent: float = 1.0, speed: float = 1.5) -> Solution:
    """Return widths in proportion to ``importance ** exponent`` within the budget, then filled up.

    Networks that were trained without sparsity have nearly equal importances, so their widths come out nearly
    uniform; an exponent above 1 spreads them. Equal importances give the uniform solution.

    Parameters
    ----------
    problem : Problem
    exponent : float, at least 0
    speed : float, at least 0
        Where widths are to be what runtimes like (`Problem.efficiency`), importance is multiplied by
        ``efficiency ** speed``: of two equally important groups the one whose FLOPs take more time gets narrower. 0
        looks at importance alone.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than the limit.

    Notes
    -----
    Source: Liu et al., AdaPruner: Adaptive Channel Pruning and Effective Weights Inheritance, arXiv:2109.06397.
    Only the abstract is public: importance from the mean of the BatchNormalization scales and a bisection for the
    widths are the paper's, the formulas are ours.
    """
    importance = np.maximum(problem.importance, 0.0)
    largest = importance.max(initial=0.0)
    relative = importance / largest if largest > 0 else np.ones_like(importance)
    relative = relative**exponent
    if problem.efficiency is not None:
        relative = relative * problem.efficiency**speed
    return solve_on_path(problem, relative)
