# SPDX-License-Identifier: Apache-2.0
"""Width solvers: how many atoms each group keeps under a budget. One file per solver."""

from __future__ import annotations

from typing import Protocol

from graphprune.solvers.problem import Problem, Solution
from graphprune.solvers.registry import Registry

__all__ = ["WidthSolver", "get", "names", "solver"]


class WidthSolver(Protocol):
    """A function that chooses widths."""

    def __call__(self, problem: Problem, /) -> Solution:
        """Return widths within the budget, with no unused step left in it.

        Raises
        ------
        BudgetUnreachableError
            When the narrowest levels cost more than the limit.
        """


_registry: Registry[WidthSolver] = Registry("solver", __name__)
solver = _registry.register
get = _registry.get
names = _registry.names
