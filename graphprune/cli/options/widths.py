# SPDX-License-Identifier: Apache-2.0
"""Widths: how wide each group becomes, and what its width may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.cli.completion import roundings, solver, solvers
from graphprune.errors import UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.solvers.registry import Setting

__all__ = [
    "AUTOMATIC",
    "ComparedWidths",
    "SolvedWidths",
    "TrainedWidths",
    "WidthLimits",
    "checked_runtime",
    "parse_settings",
    "split_names",
]


AUTOMATIC = "auto"


@dataclass(frozen=True, kw_only=True)
class WidthLimits:
    """What the width of a group may be."""

    panel: ClassVar[str] = "Widths"

    round_to: Annotated[
        str,
        typer.Option(
            metavar="auto|INT|KIND",
            autocompletion=roundings,
            help="Widths are multiples of this; 1 switches alignment off. auto: what this machine likes; or name a "
            "kind: avx512, avx2, neon, cuda, openvino, openvino-avx2, mnn.",
        ),
    ] = "auto"
    min_keep: Annotated[int, typer.Option(metavar="INT", min=1, help="Fewest channels a group keeps.")] = 1
    max_prune: Annotated[
        float, typer.Option(metavar="SHARE", help="The largest share of its channels that a group may lose.")
    ] = 1.0
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

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that are read."""
        return tuple(path for path in (self.widths, self.start) if path is not None)

    def rounding(self) -> int | str:
        """Return what ``--round-to`` means.

        Raises
        ------
        UsageError
            If it is neither ``auto``, the name of a rule, nor a positive integer.
        """
        from graphprune.solvers.moves.levels import AUTO, RULES

        text = self.round_to.strip()
        if text in (AUTO, *RULES):
            return text
        if re.fullmatch(r"0*[1-9]\d{0,5}", text, re.ASCII):
            return int(text)
        hint = (
            f"give auto, a kind of machine ({', '.join(RULES)}), "
            "or the number that every width shall be a multiple of; 1 switches alignment off"
        )
        raise UsageError(f"--round-to cannot be {quote(text)}", hint=hint)


@dataclass(frozen=True, kw_only=True)
class SolvedWidths:
    """How widths are chosen."""

    panel: ClassVar[str] = "Widths"

    solver: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=solver,
            help="How widths are chosen. auto: measured on the samples that weights are recovered from, as well as a "
            "bounded amount of work allows (sensitivity, stage-wise), else by bisection; it says which and why. An "
            "unknown name lists all.",
        ),
    ] = AUTOMATIC
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the solver or criterion. Repeatable.", show_default=False
        ),
    ] = None
    threads: Annotated[
        int, typer.Option(metavar="INT", min=1, max=512, help="Threads with which a latency is measured.")
    ] = 1
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where --latency and --bench measure, on this machine: onnxruntime, openvino, mnn, ncnn, opencv, "
            "tflite, tensorrt, cuda. --round-to auto follows it.",
        ),
    ] = "onnxruntime"
    certify: Annotated[
        bool, typer.Option("--certify", help="Say how much more saliency any other widths could keep at most.")
    ] = False
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Let residual branches go as a whole, with all their layers.")
    ] = False
    limits: WidthLimits

    def check_threads(self, latency: str | None) -> None:
        """Refuse threads where no latency is limited, which alone is measured with them.

        Raises
        ------
        UsageError
            If that is so.
        """
        if self.threads != 1 and latency is None:
            raise UsageError("--threads is for a latency, and none is limited", hint="leave it out, or give --latency")

    @property
    def measurable(self) -> bool:
        """Whether widths may be measured where there are samples: nobody says how they are chosen, or has settings."""
        return self.solver == AUTOMATIC and not (self.settings or self.allow_empty or self.certify)

    def chosen_solver(self) -> str:
        """Return the solver, or what stands for it where widths are not measured."""
        return "bisection" if self.solver == AUTOMATIC else self.solver


@dataclass(frozen=True, kw_only=True)
class ComparedWidths(SolvedWidths):
    """How widths are chosen by several solvers side by side."""

    solver: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="How widths are chosen. An unknown name lists all.", autocompletion=solvers
        ),
    ] = "all"
    certify: Annotated[bool, typer.Option(help="Say how much more saliency any widths could keep at most.")] = True

    def solvers(self) -> tuple[str, ...]:
        """Return the names of the solvers."""
        return split_names(self.solver)


@dataclass(frozen=True, kw_only=True)
class TrainedWidths:
    """How widths are chosen from what training has found."""

    panel: ClassVar[str] = "Widths"

    solver: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How widths are chosen: by default as suits the method.",
            show_default=False,
            autocompletion=solver,
        ),
    ] = None
    limits: WidthLimits


def checked_runtime(name: str) -> str:
    """Return the name of a runtime that can be used here.

    Raises
    ------
    UsageError
        If there is none of that name, or it is not installed; the message says what to install.
    """
    if name != "onnxruntime":
        from graphprune.export.deploy import require_runtimes

        require_runtimes([name])
    return name


def split_names(text: str) -> tuple[str, ...]:
    """Return the names that commas separate."""
    return tuple(name.strip() for name in text.split(","))


def parse_settings(texts: Sequence[str] | None) -> dict[str, Setting]:
    """Return the values of ``--set`` by name, as text.

    Raises
    ------
    UsageError
        If a text does not have the form ``NAME=VALUE``, or a name is given twice.
    """
    settings: dict[str, Setting] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(f"--set cannot be {quote(text)}", hint="give a name and a value, e.g. --set exponent=2")
        if name in settings:
            raise UsageError(f"--set gives {quote(name)} twice")
        settings[name] = value.strip()
    return settings
