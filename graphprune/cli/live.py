# SPDX-License-Identifier: Apache-2.0
"""Listeners to what goes on: a live line on a terminal, plain lines in a pipe, JSON lines in a file.

All are handlers of the logger "graphprune" (:mod:`graphprune.phases`) and are taken off when the command ends.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from threading import RLock, Timer
from typing import TYPE_CHECKING, Any

from graphprune.errors import OutputError, quote
from graphprune.phases import LOGGER, Event

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress, TaskID

__all__ = ["Listener", "LogFile", "ProgressDisplay", "detach", "listen"]

_SHOWN_AFTER = 0.4
"""Seconds after which a terminal shows what is done: shorter phases would only flicker."""
_SILENT = 2.0
"""Seconds without a word after which a pipe is told what is done."""
_FIRST = b'{"time": '
"""How the first line of a log begins."""
_OFTEN = 1.0
"""Seconds between two lines of a file about the same step."""


class Listener(logging.Handler):
    """Hears every event; a fault of its own is raised where it happens, as nothing here may go wrong unseen."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on what the record is about."""
        event = getattr(record, "event", None)
        if isinstance(event, Event):
            self.hear(event)

    def hear(self, event: Event) -> None:
        """Deal with an event."""
        raise NotImplementedError


class ProgressDisplay(Listener):
    """Says on stderr what is done: a line with a bar and the elapsed time on a terminal; in a pipe one line for each.

    Parameters
    ----------
    verbose : bool
        Say how long each phase took, too.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        super().__init__()
        self._verbose = verbose
        self._terminal = sys.stderr.isatty()
        self._open: list[str] = []
        self._step, self._figures, self._announced = "", "", ""
        self._timer: Timer | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._counts: tuple[int | None, int | None] = (None, None)
        self._state = RLock()  # timers fire in threads of their own

    def hear(self, event: Event) -> None:
        """Show an event."""
        with self._state:
            if event.kind == "begin":
                self._open.append(event.phase)
                self._change(Event(event.phase, "progress"))
            elif event.kind == "progress":
                self._change(event)
            elif event.kind in ("end", "failed"):
                self._end(event)

    def close(self) -> None:
        """Take everything off the screen."""
        with self._state:
            self._open.clear()
            self._hide()
        super().close()

    def _end(self, event: Event) -> None:
        if self._open:
            self._open.pop()
        self._hide()
        if event.kind == "end" and self._verbose:
            print(event.message, file=sys.stderr)
        if self._open:
            self._change(Event(self._open[-1], "progress"))

    def _change(self, event: Event) -> None:
        """Show another state now, or soon if nothing is shown yet."""
        self._step, self._counts = event.step, (event.done, event.total)
        self._figures = "".join(f"  {name} {value}" for name, value in event.figures.items())
        if self._bar is not None:
            self._draw()
        elif self._timer is None and (self._terminal or self._label != self._announced):
            self._timer = Timer(_SHOWN_AFTER if self._terminal else _SILENT, self._show)
            self._timer.daemon = True
            self._timer.start()

    def _show(self) -> None:
        """Begin to show what is done, called by the timer."""
        with self._state:
            self._timer = None
            if not self._open:
                return
            if self._terminal:
                self._start()
            elif self._label != self._announced:
                self._announced = self._label
                print(f"{self._label} ...", file=sys.stderr, flush=True)

    @property
    def _label(self) -> str:
        return self._step or (self._open[-1] if self._open else "")

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if self._bar is None:
            texts = (TextColumn("{task.description}"), TextColumn("{task.fields[count]}"))
            columns = (SpinnerColumn(), *texts, BarColumn(bar_width=24), TimeElapsedColumn())
            console = Console(file=sys.stderr, highlight=False, emoji=False, markup=False)
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task(self._label, total=None, count="")
            self._draw()
            self._bar.start()

    def _draw(self) -> None:
        done, total = self._counts
        count = "" if total is None else f"{done}/{total}"
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, description=self._label + self._figures, completed=done or 0, total=total, count=count
            )

    def _hide(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class LogFile(Listener):
    """Writes one JSON object a line: the phase, what happens in it, how far it is, seconds, and what came of it.

    Parameters
    ----------
    path : Path
        Written anew, if it is a log or not there.

    Raises
    ------
    OutputError
        If it is something else.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        if path.is_file() and path.stat().st_size and not _is_log(path):
            raise OutputError(f"{quote(str(path))} exists and is no log", hint="choose another place with --log")
        self._file = path.open("w", encoding="utf-8")
        self._last: tuple[str, str, float] = ("", "", 0.0)

    def hear(self, event: Event) -> None:
        """Write an event; of many about the same step some are left out."""
        now = time.perf_counter()
        if event.kind == "progress" and event.done != event.total:
            phase, step, written = self._last
            if (phase, step) == (event.phase, event.step) and now - written < _OFTEN:
                return
            self._last = (event.phase, event.step, now)
        entry: dict[str, Any] = {"time": round(time.time(), 3), "phase": event.phase, "event": event.kind}
        entry |= {"step": event.step} if event.step else {}
        entry |= {} if event.total is None else {"done": event.done, "total": event.total}
        entry |= {"error": event.error} if event.error else {}
        entry |= {"seconds": round(event.seconds, 4), "figures": dict(event.figures)}
        self._file.write(json.dumps(entry, default=str) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _is_log(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_FIRST)) == _FIRST


def listen(listener: Listener) -> None:
    """Let a listener hear everything from here on; nobody else does, as libraries that are used may set up the root."""
    LOGGER.setLevel(logging.DEBUG)
    _pass_on(LOGGER, further=False)
    LOGGER.addHandler(listener)


def detach() -> None:
    """Take all listeners off."""
    for handler in [*LOGGER.handlers]:
        if isinstance(handler, Listener):
            LOGGER.removeHandler(handler)
            handler.close()
    LOGGER.setLevel(logging.NOTSET)
    _pass_on(LOGGER, further=True)


def _pass_on(logger: logging.Logger, *, further: bool) -> None:
    """Let the handlers of the root hear a logger, or not."""
    logger.propagate = further
