# SPDX-License-Identifier: Apache-2.0
"""Uniform widths: every group keeps the same share of its atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.solvers.moves.path import solve_on_path
from graphprune.solvers.widths import solver

if TYPE_CHECKING:
    from graphprune.solvers.problem import Problem, Solution

__all__ = ["solve"]


@solver("uniform")
def solve(problem: Problem) -> Solution:
    """Return the largest widths within the budget that are the same share of every group, then filled up.

    Raises
    ------
    BudgetUnreachableError
        When the narrowest levels cost more than the limit.
    """
    return solve_on_path(problem, np.ones(len(problem.groups)))
