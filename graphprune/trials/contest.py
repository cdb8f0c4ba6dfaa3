# SPDX-License-Identifier: Apache-2.0
"""A contest: which solvers and criteria are tried, with which options, and what is measured of each result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graphprune.errors import UsageError, did_you_mean, quote
from graphprune.planning.make_plan import SolveOptions
from graphprune.planning.solver_choice import MADE_SOLVER
from graphprune.solvers import criteria, widths
from graphprune.solvers.evidence import needed
from graphprune.solvers.registry import settings
from graphprune.trials.meter import Measures

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALL", "Contest"]

ALL = "all"


@dataclass(frozen=True)
class Contest:
    """What is tried.

    Parameters
    ----------
    solvers, criteria : tuple of str
        Names; ``("all",)`` stands for all that there are; without samples for all that need none, and for what `solve`
        takes where samples are made.
    options : SolveOptions
        What holds for all; its solver and criterion do not count. A setting goes to the methods that have it.
    measures : Measures
        What is measured of each result: latency, accuracy. Nothing is pruned for nothing.

    Raises
    ------
    UsageError
        If there is no such solver, criterion or setting, a name is given twice, or a method needs samples and there are
        none.
    """

    solvers: tuple[str, ...] = (ALL,)
    criteria: tuple[str, ...] = ("bn-scale",)
    options: SolveOptions = field(default_factory=SolveOptions)
    measures: Measures = field(default_factory=Measures)

    def __post_init__(self) -> None:
        methods = [*map(widths.get, self.all_solvers), *map(criteria.get, self.all_criteria)]
        known = sorted({name for method in methods for name in settings(method)})
        for name in self.options.settings:
            if name not in known:
                there = f"these methods have {', '.join(known)}" if known else "these methods have none"
                raise UsageError(f"unknown setting {quote(name)}: {there}", hint=did_you_mean(name, known))
        asking = [
            *(name for name in self.all_solvers if widths.needs_samples(name)),
            *(name for name in self.all_criteria if criteria.needs_samples(name)),
        ]
        if asking and not self.measures.samples:
            needed(None, asking[0])

    @property
    def all_solvers(self) -> tuple[str, ...]:
        """The names of the solvers."""
        return self._names(self.solvers, widths.names, widths.needs_samples)

    @property
    def all_criteria(self) -> tuple[str, ...]:
        """The names of the criteria."""
        return self._names(self.criteria, criteria.names, criteria.needs_samples)

    @property
    def count(self) -> int:
        """How many solvers with how many criteria that are."""
        return len(self.all_solvers) * len(self.all_criteria)

    def _names(
        self, given: tuple[str, ...], known: Callable[[], tuple[str, ...]], asks: Callable[[str], bool]
    ) -> tuple[str, ...]:
        names = _names(given, known)
        if ALL not in given or self.measures.calib:
            return names
        measured = (MADE_SOLVER,) if self.measures.alone else ()
        return tuple(name for name in names if not asks(name) or name in measured)

    @property
    def one_scale(self) -> bool:
        """Whether what one trial keeps can be held against the bound of another of the same criterion.

        A plan to start from and the setting `normalize` change the scale of what is kept.
        """
        return self.options.constraints.start is None and "normalize" not in self.options.settings

    def choice(self, solver: str, criterion: str) -> SolveOptions:
        """Return the options of one trial."""
        known = {**settings(widths.get(solver)), **settings(criteria.get(criterion))}
        own = {name: value for name, value in self.options.settings.items() if name in known}
        return replace(self.options, solver=solver, criterion=criterion, settings=own)


def _names(given: tuple[str, ...], known: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    if ALL in given:
        if len(given) > 1:
            raise UsageError(f"{ALL!r} stands for every name, so give no other one")
        return known()
    for name in given:
        if given.count(name) > 1:
            raise UsageError(f"{quote(name)} is given twice")
    if not given:
        raise UsageError("no name is given", hint=f"give some of {', '.join(known())}")
    return given
