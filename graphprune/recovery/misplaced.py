# SPDX-License-Identifier: Apache-2.0
"""Options that are given where a budget is: which object of options they belong to."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from graphprune.errors import UsageError, quote
from graphprune.planning.analyze_options import AnalyzeOptions
from graphprune.planning.constraints.constraints import Constraints
from graphprune.planning.solve_options import SolveOptions
from graphprune.recovery.recover_options import RecoverOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_keywords"]

_OPTIONS: dict[type[Any], str] = {
    SolveOptions: "give it in the options: graphprune.solve(model, flops=0.5, options={})",
    AnalyzeOptions: "analyse the model with it first: graphprune.solve(graphprune.analyze(model, {}), flops=0.5)",
    Constraints: "give it in the options: graphprune.solve(model, flops=0.5, "
    "options=graphprune.SolveOptions(constraints={}))",
    RecoverOptions: "it is for what follows: graphprune.recover(model, pruned, plan, samples, {})",
}
_SAMPLES = ("calib", "samples")
"""What the command line and others call them."""


def check_keywords(limits: Mapping[str, object]) -> None:
    """Say where an option belongs that is given as if it were a budget.

    Raises
    ------
    UsageError
        If there is one.
    """
    for name in limits:
        if name in _SAMPLES:
            raise UsageError(
                f"solve has no keyword {quote(name)}: samples are its data",
                hint="graphprune.solve(model, flops=0.5, data=graphprune.samples(model, ...))",
            )
        for kind, call in _OPTIONS.items():
            if name in {field.name for field in fields(kind)}:
                shown = f"graphprune.{kind.__name__}({name}=...)"
                raise UsageError(f"solve has no keyword {quote(name)}: it is an option", hint=call.format(shown))
