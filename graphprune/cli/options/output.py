# SPDX-License-Identifier: Apache-2.0
"""Output: where results go, and what is printed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.cli.console import Talk
from graphprune.cli.options.device import VerifyDevice
from graphprune.cli.report_file import check_page_name
from graphprune.cli.targets import Targets, beside
from graphprune.errors import UsageError
from graphprune.extras import require, runtime_conflict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graphprune.choices import NumberFormat

__all__ = [
    "AppliedOutput",
    "DryOutput",
    "Output",
    "Printing",
    "PrunedOutput",
    "SolvedOutput",
    "TrainedOutput",
    "UnverifiedOutput",
]


@dataclass(frozen=True)
class Printing:
    """What is printed."""

    panel: ClassVar[str] = "Output"

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what takes how long.")] = False
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what is done as JSON lines: phase, progress, seconds, figures.",
            show_default=False,
        ),
    ] = None

    def talk(self) -> Talk:
        """Return what a command says while it works; from here on it is shown what that is.

        Raises
        ------
        OutputError
            If the log cannot be written.
        """
        from graphprune.cli.live import LogFile, ProgressDisplay, listen
        from graphprune.model.files.atomic import output_errors

        listen(ProgressDisplay(verbose=self.verbose))
        if self.log is not None:
            with output_errors(self.log):
                listen(LogFile(self.log))
        talk = Talk(verbose=self.verbose)
        if conflict := runtime_conflict():
            talk.note(conflict)
        return talk


@dataclass(frozen=True)
class Output:
    """Where the result goes."""

    panel: ClassVar[str] = "Output"

    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the result goes.", show_default=False)
    ] = None
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")] = False


@dataclass(frozen=True)
class DryOutput(Output):
    """The same, or nowhere."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")] = False


@dataclass(frozen=True)
class UnverifiedOutput(DryOutput):
    """The same for what is verified before it is written."""

    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Write even where onnxruntime cannot run the model to verify the result."),
    ] = False
    verify_device: VerifyDevice = "cpu"


@dataclass(frozen=True)
class AppliedOutput(UnverifiedOutput):
    """Where a pruned model goes, and its plan if that is wanted."""

    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Write the plan as applied, with all figures brought up to date."),
    ] = None
    bench: Annotated[bool, typer.Option("--bench", help="Time both models against each other.")] = False

    def targets(self, model: Path) -> Targets:
        """Return where everything goes."""
        return Targets(self._output(model), self.plan_file, self.force, self.dry_run)

    def _output(self, model: Path) -> Path:
        return self.output or beside(model, ".pruned.onnx")


@dataclass(frozen=True)
class PrunedOutput(AppliedOutput):
    """Where a pruned model and its plan go."""

    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Where the plan goes. [default: MODEL.plan.json]", show_default=False
        ),
    ] = None

    def targets(self, model: Path) -> Targets:
        """Return where everything goes."""
        return Targets(self._output(model), self.plan_file or beside(model, ".plan.json"), self.force, self.dry_run)


@dataclass(frozen=True)
class SolvedOutput(PrunedOutput):
    """Where a pruned model, its plan and a report on both go."""

    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a page that shows what went, where and why (.html).", show_default=False
        ),
    ] = None

    def checked_targets(
        self,
        model: Path,
        inputs: Iterable[Path | str | None],
        precision: NumberFormat | None = None,
        log: Path | None = None,
    ) -> Targets:
        """Return where everything goes; what could not be written, or a report not be drawn, is refused.

        Parameters
        ----------
        model : Path
        inputs : iterable of Path, str or None
            Whatever else is read.
        precision : {"int8", "fp16"}, optional
            In which the result is written as well.
        log : Path, optional

        Raises
        ------
        OutputError, UsageError
        """
        further: dict[str, Path] = {}
        targets = self.targets(model)
        if precision is not None:
            further[f"{precision} model"] = beside(targets.output, f".{precision}.onnx")
        if self.report is not None:
            if self.dry_run:
                raise UsageError("--report writes a file, and --dry-run writes none", hint="give one of them")
            require("report", "--report")
            check_page_name(self.report)
            further["report"] = self.report
        targets = replace(targets, further=further)
        targets.check([model, *inputs], log)
        return targets


@dataclass(frozen=True)
class TrainedOutput(PrunedOutput):
    """Where a model goes that was pruned while it was trained."""

    trained: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the trained model goes, to which the plan belongs. [default: MODEL.trained.onnx]",
            show_default=False,
        ),
    ] = None
