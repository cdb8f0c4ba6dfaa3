# SPDX-License-Identifier: Apache-2.0
"""Budget: what is limited, and to how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.errors import UsageError

if TYPE_CHECKING:
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Metric

__all__ = ["Budgets", "BudgetsOrLossless"]


@dataclass(frozen=True)
class Budgets:
    """What is limited."""

    panel: ClassVar[str] = "Budget"

    flops: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET", help="FLOPs to keep, as a share or an amount: 0.5, 300M. 1 keeps all.", show_default=False
        ),
    ] = None
    params: Annotated[
        str | None, typer.Option(metavar="BUDGET", help="Parameters to keep: 0.5, 2M.", show_default=False)
    ] = None
    size: Annotated[
        str | None,
        typer.Option(metavar="BUDGET", help="Bytes of the written file to keep: 0.5, 5MB.", show_default=False),
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET",
            help="Bytes of activations that are alive at once to keep: 0.5, 2MB.",
            show_default=False,
        ),
    ] = None
    latency: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET",
            help="Time to keep, measured on this machine (see --runtime): 0.5, 8ms.",
            show_default=False,
        ),
    ] = None

    def requests(self) -> tuple[BudgetRequest, ...]:
        """Return the budgets that are given, of which the first one leads.

        Raises
        ------
        UsageError
            If there is none, or a text means nothing.
        """
        from graphprune.plan.budget import requests

        return requests(self._texts())

    def targets(self) -> tuple[Metric, tuple[float | str, ...]] | None:
        """Return the one cost that is limited and the budgets for it, which commas separate; None if there is none.

        Raises
        ------
        UsageError
            If several costs are limited, or a text means nothing.
        """
        from graphprune.plan.budget import parse_target

        given = {metric: text for metric, text in self._texts().items() if text is not None}
        if not given:
            return None
        if len(given) > 1:
            raise UsageError(
                f"budgets are given for {' and '.join(given)}",
                hint="give several for one cost, e.g. --flops 0.7,0.5,0.3",
            )
        ((metric, text),) = given.items()
        return metric, tuple(parse_target(part, metric) for part in text.split(","))

    def _texts(self) -> dict[Metric, str | None]:
        return {
            "flops": self.flops,
            "params": self.params,
            "size": self.size,
            "memory": self.memory,
            "latency": self.latency,
        }


@dataclass(frozen=True)
class BudgetsOrLossless(Budgets):
    """The same, or none at all: then only what changes nothing is removed."""

    lossless: Annotated[
        bool, typer.Option("--lossless", help="Remove only what changes nothing, without a budget.")
    ] = False

    def requests(self) -> tuple[BudgetRequest, ...]:
        """Return the budgets that are given; ``--lossless`` needs none."""
        if self.lossless and all(text is None for text in self._texts().values()):
            return ()
        return super().requests()
