# SPDX-License-Identifier: Apache-2.0
"""A training run on the command line: its checkpoint, how many processes take part, and a meter on stderr."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Self

from graphprune.errors import InputError, OutputError, quote
from graphprune.phases import phase, progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from graphprune.training.long_run import Report

__all__ = ["ProgressLine", "check_checkpoint", "line", "missing_processes"]

_COUNTED = ("WORLD_SIZE", "LOCAL_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def check_checkpoint(checkpoint: Path, *, resume: bool, force: bool) -> None:
    """Refuse a checkpoint that is in the way, or is wanted and not there.

    Raises
    ------
    OutputError, InputError
    """
    if checkpoint.exists() and not (resume or force):
        raise OutputError(f"{quote(str(checkpoint))} exists", hint="go on with --resume, or start anew with --force")
    if resume and not checkpoint.exists():
        raise InputError(
            f"there is no run to go on with: {quote(str(checkpoint))} does not exist", hint="leave out --resume"
        )


def missing_processes(environment: Mapping[str, str] = os.environ) -> str:
    """Return what to say where `accelerate launch` was to start several processes, and started one; else nothing.

    It names an address where processes meet if several are wanted. On processors, without MPI, it still starts one,
    which is not told how many there should be.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment
    if not launched or any(name in environment for name in _COUNTED):
        return ""
    return (
        "accelerate launch was to start several processes, but started only this one; on processors, "
        "accelerate launch --multi_gpu --num_processes 2 -m graphprune ... --device cpu starts two"
    )


class ProgressLine:
    """Shows the reports of a run, in a ``with`` statement: as a phase, and in a pipe what was measured line by line.

    Parameters
    ----------
    name : str
        Of the phase.
    """

    def __init__(self, name: str = "training") -> None:
        self._phase = phase(name)
        self._lines = not sys.stderr.isatty()
        self._shown: object = None

    def __enter__(self) -> Self:
        self._phase.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._phase.__exit__(kind, error, trace)

    def listen(self, report: Report) -> None:
        """Show a report."""
        progress(report.step, report.total, report.stage, **_figures(report))
        if self._lines and report.measure is not self._shown:
            self._shown = report.measure
            print(line(report), file=sys.stderr)


def _figures(report: Report) -> dict[str, str]:
    """Return what a report says, for a line."""
    left = round(report.seconds_left)
    figures = {"loss": f"{report.loss:.4g}"}
    if report.measure is not None:
        figures["held-out"] = f"{report.measure.loss:.4g}"
        for name, share in (("accuracy", report.measure.accuracy), ("agreement", report.measure.agreement)):
            if share is not None:
                figures[name] = f"{share:.2%}"
    return figures | {"left": f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"}


def line(report: Report) -> str:
    """Return a report as one line."""
    figures = "  ".join(f"{name} {value}" for name, value in _figures(report).items())
    return f"{report.stage} {report.step}/{report.total}  {figures}"
