# SPDX-License-Identifier: Apache-2.0
"""A method: a hook that knows, when training is over, which channels matter."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from graphprune.model.load import Model
from graphprune.plan.schema import Plan
from graphprune.rewrites.merge import Inherit
from graphprune.solvers.registry import Setting, settings
from graphprune.solvers.saliency import Scores
from graphprune.training.hooks import Hook

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.training.pruning.run import Run

__all__ = ["Method", "MethodResult"]


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What a method has found.

    Attributes
    ----------
    scores : Scores
        Saliency of every atom of every group of the whole model.
    start : Plan, optional
        What goes first, with the widths that it has: the plan that is made starts from it.
    inherit : {"keep", "merge"}
        What becomes of the weights that read a removed channel.
    trace : tuple of dict
        For the record: how it came to that.
    further : mapping of str to Model
        Other models that came of it, by a word for the name of their files.
    """

    scores: Scores
    start: Plan | None = None
    inherit: Inherit = "keep"
    trace: tuple[Mapping[str, Any], ...] = ()
    further: Mapping[str, Model] = field(default_factory=dict)


class Method(Hook, ABC):
    """What the run asks of a method; the hook's part of it happens at every step.

    Keyword-only parameters of a method's constructor are settings that a user may give, and attributes of the same
    name hold them.

    Attributes
    ----------
    name : str
        Under which it is registered.
    labelled : bool
        Whether it needs labels.
    solver : str
        The width solver that fits its scores, where the user names none.
    exact : bool
        Whether what goes after the last step changes nothing, so that there is nothing to make good.
    makes : tuple of str
        The keys of `MethodResult.further`.
    """

    name: ClassVar[str] = ""
    labelled: ClassVar[bool] = False
    solver: ClassVar[str] = "global"
    exact: ClassVar[bool] = False
    makes: ClassVar[tuple[str, ...]] = ()

    def record(self) -> dict[str, Setting]:
        """Return the settings."""
        return {name: getattr(self, name) for name in settings(type(self))}

    def begin_run(self, run: Run) -> None:
        """Look at the network, attach gates, choose targets. Called once before the first step.

        A method that still defines it under its former name, ``begin_course``, is asked by that, for one release.
        """
        former: Callable[[Run], None] | None = getattr(self, "begin_course", None)
        if former is not None:
            _deprecate(f"begin_course of the method {self.name!r}", "begin_run")
            former(run)

    def stops(self, run: Run) -> tuple[int, ...]:
        """Return after which steps `survivors` is asked, increasing."""
        return ()

    def survivors(self, run: Run) -> Plan | None:
        """Return what goes now: a plan for the whole model that starts from the last one. None for nothing."""
        return None

    def renew(self, run: Run) -> None:
        """Take up a network that has shrunk: ``run.running`` is another one.

        Gates are to be attached again, and held as ``run.open`` says: what is gone may still be in the module.
        """

    def settle(self, analysis: Analysis, plan: Plan) -> Plan:
        """Return the plan for the trained model as it is to be carried out; kept atoms and widths are not changed."""
        return plan

    @abstractmethod
    def finish(self, run: Run) -> MethodResult:
        """Say what was found; weights may be changed for the last time."""


def __getattr__(name: str) -> Any:
    """Know `MethodResult` by its former name, for one release."""
    if name != "Outcome":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _deprecate(f"{__name__}.Outcome", "MethodResult")
    return MethodResult


def _deprecate(former: str, name: str) -> None:
    warnings.warn(f"{former} is {name} now; the next release drops the old name", DeprecationWarning, stacklevel=3)
