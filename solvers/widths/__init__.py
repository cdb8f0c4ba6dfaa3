# SPDX-License-Identifier: Apache-2.0
"""Width solvers: how many atoms each group keeps under a budget. One file per solver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphprune.errors import InternalError, quote
from graphprune.solvers.fill import fill
from graphprune.solvers.problem import Problem, Solution, ensure_sound
from graphprune.solvers.registry import Registry

__all__ = ["AUTO", "WidthSolver", "get", "names", "needs_samples", "solver"]


WidthSolver = Callable[..., Solution]
"""A function ``(problem, *, setting=default, ...)`` that gives widths within all limits, with no step left that fits,
and raises :class:`~graphprune.errors.BudgetUnreachableError` where the narrowest levels cost more. Its keyword-only
parameters are settings that a user may give."""


AUTO = "auto"
"""Stands for the solver that suits what there is: samples, and how much work may be done."""


def _fault(given: object, problem: Problem) -> str | None:
    """Say what is wrong with a solution that another package gave."""
    if not isinstance(given, Solution):
        return f"it gave a {type(given).__name__}, not a Solution"
    try:
        ensure_sound(problem, given, "of another package")
    except InternalError as error:
        return error.message
    wider = np.flatnonzero(fill(problem, given.widths) != given.widths)
    return f"group {quote(problem.groups[wider[0]])} could be wider within the limits" if wider.size else None


_registry: Registry[WidthSolver] = Registry("solver", __name__, "graphprune.solvers", _fault, words=(AUTO,))
solver = _registry.register
get = _registry.get
names = _registry.names
needs_samples = _registry.needs_samples
