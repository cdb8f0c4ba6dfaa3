# SPDX-License-Identifier: Apache-2.0
"""Channels: which of them stay, and what becomes of the weights that read the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.choices import Aggregation, Inherit
from graphprune.cli.completion import criteria, names_in_model
from graphprune.cli.options.widths import SolvedWidths, WidthLimits, checked_runtime, parse_settings, split_names

if TYPE_CHECKING:
    from graphprune.api import SolveOptions
    from graphprune.planning.constraints.constraints import Constraints

__all__ = ["ComparedChannels", "PrunableChannels", "SolvedChannels"]


@dataclass(frozen=True, kw_only=True)
class PrunableChannels:
    """Which channels may go at all."""

    panel: ClassVar[str] = "Channels"

    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Prune only channels that these nodes, weights or groups make; a glob, or a regular "
            "expression after re:. Repeatable.",
            show_default=False,
            autocompletion=names_in_model,
        ),
    ] = None
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave such channels whole. Repeatable.",
            show_default=False,
            autocompletion=names_in_model,
        ),
    ] = None

    def constraints(self, limits: WidthLimits) -> Constraints:
        """Return what may become of single groups, for the Python API; reads the files."""
        from graphprune.plan.file import read_plan
        from graphprune.planning.constraints.constraints import Constraints
        from graphprune.planning.constraints.widths_file import read_widths

        return Constraints(
            max_prune=limits.max_prune,
            only=tuple(self.only or ()),
            skip=tuple(self.skip or ()),
            widths=read_widths(limits.widths) if limits.widths else {},
            start=read_plan(limits.start) if limits.start else None,
        )


@dataclass(frozen=True, kw_only=True)
class SolvedChannels:
    """How channels are chosen."""

    panel: ClassVar[str] = "Channels"

    criterion: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="How important a channel is. An unknown name lists all.", autocompletion=criteria
        ),
    ] = "bn-scale"
    aggregate: Annotated[
        Aggregation | None,
        typer.Option(help="How the scores of a group's members become one.", show_default=False),
    ] = None
    adapt: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Criteria that compete for which channels stay, by what the samples of --calib say of each.",
            show_default=False,
            autocompletion=criteria,
        ),
    ] = None
    inherit: Annotated[
        Inherit,
        typer.Option(help="merge: who read a removed channel reads a multiple of its most similar kept one instead."),
    ] = "keep"
    seed: Annotated[int, typer.Option(metavar="INT", min=0, help="For criteria that draw.")] = 0
    prunable: PrunableChannels

    def solve_options(self, widths: SolvedWidths, *, lossless: bool = False) -> SolveOptions:
        """Return how widths and channels are chosen, for the Python API; reads the files.

        Raises
        ------
        UsageError
            If a value has no meaning, or a criterion needs packages that are not installed.
        """
        from graphprune import api
        from graphprune.solvers import criteria

        settings = parse_settings(widths.settings)
        for name in (*split_names(self.criterion), *(split_names(self.adapt) if self.adapt else ())):
            criteria.require(name, settings)
        return api.SolveOptions(
            solver=widths.chosen_solver(),
            criterion=self.criterion,
            round_to=widths.limits.rounding(),
            min_keep=widths.limits.min_keep,
            seed=self.seed,
            threads=widths.threads,
            runtime=checked_runtime(widths.runtime),
            aggregate=self.aggregate or "",
            settings=settings,
            constraints=self.prunable.constraints(widths.limits),
            certify=widths.certify,
            inherit=self.inherit,
            lossless=lossless,
            allow_empty=widths.allow_empty,
            adapt=split_names(self.adapt) if self.adapt else (),
        )


@dataclass(frozen=True, kw_only=True)
class ComparedChannels(SolvedChannels):
    """How channels are chosen by several criteria side by side."""

    criterion: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="How important a channel is. An unknown name lists all.", autocompletion=criteria
        ),
    ] = "bn-scale"

    def criteria(self) -> tuple[str, ...]:
        """Return the names of the criteria."""
        return split_names(self.criterion)
