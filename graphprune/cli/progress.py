# SPDX-License-Identifier: Apache-2.0
"""A meter on stderr for long training: one line that changes on a terminal, one line per measure elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from graphprune.training.long_run import Report

__all__ = ["ProgressLine", "line"]


class ProgressLine:
    """Shows the reports of a run. Use it in a ``with`` statement, which ends the line."""

    def __init__(self) -> None:
        self._moves = sys.stderr.isatty()
        self._shown: object = None
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            print(file=sys.stderr)

    def listen(self, report: Report) -> None:
        """Show a report."""
        if self._moves:
            print(f"\r{line(report):<100}", end="", flush=True, file=sys.stderr)
            self._open = True
        elif report.measure is not self._shown:
            self._shown = report.measure
            print(line(report), file=sys.stderr)


def line(report: Report) -> str:
    """Return a report as one line."""
    left = round(report.seconds_left)
    parts = [f"{report.stage} {report.step}/{report.total}", f"loss {report.loss:.4g}"]
    if report.measure is not None:
        parts.append(f"held-out {report.measure.loss:.4g}")
        for name, share in (("accuracy", report.measure.accuracy), ("agreement", report.measure.agreement)):
            if share is not None:
                parts.append(f"{name} {share:.2%}")
    parts.append(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left")
    return "  ".join(parts)
