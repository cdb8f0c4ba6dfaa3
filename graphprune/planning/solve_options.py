# SPDX-License-Identifier: Apache-2.0
"""How a plan is found: the options of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphprune.checks import check_fields
from graphprune.errors import UsageError
from graphprune.planning.adaptive_choice import Candidates
from graphprune.planning.constraints.bounds import WidthRules
from graphprune.planning.constraints.constraints import Constraints
from graphprune.rewrites.merge import Inherit
from graphprune.solvers import widths
from graphprune.solvers.criteria import Aggregate
from graphprune.solvers.moves.levels import rule_for
from graphprune.solvers.registry import Setting

__all__ = ["SolveOptions"]

_MEASURE_EMPTY = frozenset({"sensitivity"})
"""Solvers that try out networks, and to which nothing is a width like any other."""


@dataclass(frozen=True)
class SolveOptions:
    """How a plan is found.

    Parameters
    ----------
    solver : str
        How widths are chosen: a name in :mod:`graphprune.solvers.widths`; or "auto": measured on the samples that are
        given, as well as a bounded amount of work allows, and by `bisection` without any.
    criterion : str
        How important a channel is: a name in :mod:`graphprune.solvers.criteria`.
    round_to : int or str
        Widths are multiples of this number of channels, 1 switches alignment off; or what a kind of machine likes: a
        rule of :mod:`graphprune.solvers.moves.levels`, "auto" for that of this machine.
    min_keep : int
        The fewest channels that a group keeps; a narrower group stays whole.
    seed : int
        For criteria and solvers that draw.
    aggregate : {"", "sum", "mean", "max", "first"}
        How the scores of a group's members become one; "" leaves it to the criterion.
    settings : mapping of str to bool, int, float or str
        Settings that a solver or criterion has of its own, by name.
    constraints : Constraints
        What may become of single groups.
    threads : int
        With how many threads of onnxruntime a latency is measured.
    runtime : str
        In which runtime: a name in :mod:`graphprune.export.runtimes`. What "auto" rounds to follows it.
    certify : bool
        Say how much more saliency any widths within the budgets could keep at most.
    inherit : {"keep", "merge"}
        What becomes of the weights that read a removed channel: they go, or are added to those that read the most
        similar kept channel.
    lossless : bool
        Remove only what changes nothing, whatever that saves; there is no budget then.
    allow_empty : bool
        Let groups go as a whole, with all layers that depend on them, where a residual branch or an operand of a
        concatenation can do without.
    adapt : tuple of str
        Criteria that compete for the choice of channels once widths are chosen
        (:mod:`graphprune.planning.adaptive_choice`).
    """

    solver: str = "bisection"
    criterion: str = "bn-scale"
    round_to: int | str = "auto"
    min_keep: int = 1
    seed: int = 0
    aggregate: Aggregate = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    constraints: Constraints = field(default_factory=Constraints)
    threads: int = 1
    runtime: str = "onnxruntime"
    certify: bool = False
    inherit: Inherit = "keep"
    lossless: bool = False
    allow_empty: bool = False
    adapt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, aggregate=Aggregate, inherit=Inherit)
        if self.min_keep < 1:
            raise UsageError(f"a group keeps at least one channel, min_keep is {self.min_keep}")
        if self.seed < 0:
            raise UsageError(f"the seed is {self.seed}, but must not be negative")
        if self.threads < 1:
            raise UsageError(f"a latency is measured with at least one thread, threads is {self.threads}")
        if self.threads > 1 and self.runtime != "onnxruntime":
            raise UsageError(f"{self.runtime} is measured on one thread, threads is {self.threads}")
        if self.allow_empty and (self.min_keep > 1 or self.constraints.max_prune < 1 or self.constraints.start):
            raise UsageError(
                "groups cannot go as a whole where a least width, a largest share or a plan to start from is given"
            )
        tries = widths.needs_samples(self.solver) and self.solver not in _MEASURE_EMPTY
        if self.allow_empty and (self.adapt or tries):
            what = "--adapt" if self.adapt else f"--solver {self.solver}"
            raise UsageError(
                f"groups cannot go as a whole with {what}, which tries out networks that have all of them",
                hint=f"leave out --allow-empty, or choose widths by --solver {' or '.join(sorted(_MEASURE_EMPTY))}",
            )

    @property
    def contest(self) -> Candidates:
        """Who competes for the choice of channels."""
        return Candidates(self.adapt, self.criterion, self.solver)

    @property
    def width_rule(self) -> int | str:
        """What `round_to` stands for on this machine: a number, or the name of a rule."""
        return rule_for(self.round_to, self.runtime)

    @property
    def rules(self) -> WidthRules:
        """What is said about widths."""
        return WidthRules(self.round_to, self.min_keep, self.constraints)
