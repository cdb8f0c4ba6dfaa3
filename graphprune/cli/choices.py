# SPDX-License-Identifier: Apache-2.0
"""What the commands that choose widths share: budgets, how to choose, and how the model is analysed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.cli import options as opt
from graphprune.cli.data_options import SOURCE_HELP, Limit
from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from graphprune.api import AnalyzeOptions, SolveOptions
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Metric
    from graphprune.planning.constraints.constraints import Constraints
    from graphprune.trials.meter import Measures

__all__ = [
    "Aggregation",
    "AnalysisChoices",
    "Budgets",
    "Choosing",
    "Comparing",
    "Constraining",
    "Inheritance",
    "Measuring",
    "parse_settings",
]


class Inheritance(StrEnum):
    """What becomes of the weights that read a removed channel."""

    keep = "keep"
    merge = "merge"


class Aggregation(StrEnum):
    """How the scores of the members of a group become one."""

    default = ""
    sum = "sum"
    mean = "mean"
    max = "max"
    first = "first"


@dataclass(frozen=True)
class Budgets:
    """What is limited."""

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
            help="Time to keep, measured in onnxruntime on this machine: 0.5, 8ms.",
            show_default=False,
        ),
    ] = None

    def requests(self, *, needed: bool = True) -> tuple[BudgetRequest, ...]:
        """Return the budgets that are given; the first one leads. One is `needed`, unless the plan is lossless."""
        from graphprune.plan.budget import requests

        if not needed and all(value is None for value in vars(self).values()):
            return ()
        return requests(
            {
                "flops": self.flops,
                "params": self.params,
                "size": self.size,
                "memory": self.memory,
                "latency": self.latency,
            }
        )

    def targets(self) -> tuple[Metric, tuple[float | str, ...]] | None:
        """Return the one cost that is limited and the budgets for it, which commas separate; None if there is none.

        Raises
        ------
        UsageError
            If several costs are limited, or a text means nothing.
        """
        from graphprune.plan.budget import parse_target
        from graphprune.plan.schema import METRICS

        given = {metric: text for metric in METRICS if (text := getattr(self, metric, None)) is not None}
        if not given:
            return None
        if len(given) > 1:
            raise UsageError(
                f"budgets are given for {' and '.join(given)}",
                hint="give several for one cost, e.g. --flops 0.7,0.5,0.3",
            )
        ((metric, text),) = given.items()
        return metric, tuple(parse_target(part, metric) for part in text.split(","))


@dataclass(frozen=True)
class Choosing:
    """How channels and widths are chosen."""

    solver: Annotated[str, typer.Option(metavar="NAME", help="How widths are chosen. An unknown name lists all.")] = (
        "bisection"
    )
    criterion: Annotated[
        str, typer.Option(metavar="NAME", help="How important a channel is. An unknown name lists all.")
    ] = "bn-scale"
    round_to: Annotated[
        str,
        typer.Option(
            metavar="auto|INT|KIND",
            help="Widths are multiples of this; 1 switches alignment off. auto: what this machine likes; or name a "
            "kind: avx512, avx2, neon, cuda.",
        ),
    ] = "auto"
    min_keep: Annotated[int, typer.Option(metavar="INT", min=1, help="Fewest channels a group keeps.")] = 1
    aggregate: Annotated[
        Aggregation, typer.Option(help="How the scores of a group's members become one.", show_default=False)
    ] = Aggregation.default
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the solver or criterion. Repeatable.", show_default=False
        ),
    ] = None
    seed: Annotated[int, typer.Option(metavar="INT", min=0, help="For criteria that draw.")] = 0
    threads: Annotated[
        int, typer.Option(metavar="INT", min=1, max=512, help="Threads with which a latency is measured.")
    ] = 1
    certify: Annotated[
        bool, typer.Option("--certify", help="Say how much more saliency any other widths could keep at most.")
    ] = False
    inherit: Annotated[
        Inheritance,
        typer.Option(help="merge: who read a removed channel reads a multiple of its most similar kept one instead."),
    ] = Inheritance.keep

    adapt: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Criteria that compete for which channels stay, by what the samples of --calib say of each.",
            show_default=False,
        ),
    ] = None
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Let residual branches go as a whole, with all their layers.")
    ] = False

    def options(self) -> SolveOptions:
        """Return the same for the Python API."""
        from graphprune import api

        return api.SolveOptions(
            solver=self.solver,
            criterion=self.criterion,
            round_to=opt.parse_rounding(self.round_to),
            min_keep=self.min_keep,
            seed=self.seed,
            threads=self.threads,
            aggregate=self.aggregate.value,
            settings=parse_settings(self.settings),
            certify=self.certify,
            inherit=self.inherit.value,
            allow_empty=self.allow_empty,
            adapt=tuple(name.strip() for name in self.adapt.split(",")) if self.adapt else (),
        )


@dataclass(frozen=True)
class Comparing(Choosing):
    """The same for several solvers and criteria side by side."""

    solver: Annotated[
        str, typer.Option(metavar="NAME,...", help="How widths are chosen. An unknown name lists all.")
    ] = "all"
    criterion: Annotated[
        str, typer.Option(metavar="NAME,...", help="How important a channel is. An unknown name lists all.")
    ] = "bn-scale"

    certify: Annotated[bool, typer.Option(help="Say how much more saliency any widths could keep at most.")] = True

    def solvers(self) -> tuple[str, ...]:
        """Return the names of the solvers."""
        return tuple(name.strip() for name in self.solver.split(","))

    def criteria(self) -> tuple[str, ...]:
        """Return the names of the criteria."""
        return tuple(name.strip() for name in self.criterion.split(","))


@dataclass(frozen=True)
class Constraining:
    """What may become of single groups."""

    max_prune: Annotated[
        float, typer.Option(metavar="SHARE", help="The largest share of its channels that a group may lose.")
    ] = 1.0
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Prune only channels that these nodes, weights or groups make; a glob, or a regular "
            "expression after re:. Repeatable.",
            show_default=False,
        ),
    ] = None
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave such channels whole. Repeatable.", show_default=False),
    ] = None
    widths: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YAML or JSON with widths in channels, by group or node.", show_default=False
        ),
    ] = None
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PLAN", help="A plan to start from: what it removes goes first.", show_default=False
        ),
    ] = None

    def constraints(self) -> Constraints:
        """Return the same for the Python API; reads the files."""
        from graphprune.plan.file import read_plan
        from graphprune.planning.constraints.constraints import Constraints
        from graphprune.planning.constraints.widths_file import read_widths

        return Constraints(
            max_prune=self.max_prune,
            only=tuple(self.only or ()),
            skip=tuple(self.skip or ()),
            widths=read_widths(self.widths) if self.widths else {},
            start=read_plan(self.start) if self.start else None,
        )


@dataclass(frozen=True)
class Measuring:
    """What is measured of pruned models."""

    bench: Annotated[bool, typer.Option("--bench", help="Measure the latency of each result.")] = False
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help=f"Measure the accuracy of each result on: {SOURCE_HELP}.", show_default=False
        ),
    ] = None
    calib: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Samples for criteria and solvers that look at some; with --data, each result is recovered from them.",
            show_default=False,
        ),
    ] = None
    limit: Limit = None

    def measures(self) -> Measures:
        """Return the same for the Python API."""
        from graphprune.trials.meter import Measures

        return Measures(self.bench, self.data or "", self.calib or "", self.limit)


@dataclass(frozen=True)
class AnalysisChoices:
    """How a model is analysed."""

    input_shape: opt.InputShapes = None
    attention: opt.AttentionAxis = opt.Attention.heads
    allow_approximate: opt.Approximate = False

    def options(self) -> AnalyzeOptions:
        """Return the same for the Python API."""
        from graphprune import api

        return api.AnalyzeOptions(opt.parse_shapes(self.input_shape), self.attention.value, self.allow_approximate)


def parse_settings(texts: list[str] | None) -> dict[str, bool | int | float | str]:
    """Return the values of ``--set`` by name, as text.

    Raises
    ------
    UsageError
        If a text does not have the form ``NAME=VALUE``, or a name is given twice.
    """
    found: dict[str, bool | int | float | str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(f"--set cannot be {quote(text)}", hint="give a name and a value, e.g. --set exponent=2")
        if name in found:
            raise UsageError(f"--set gives {quote(name)} twice")
        found[name] = value.strip()
    return found
