# SPDX-License-Identifier: Apache-2.0
"""Runs in processes of their own, under limits of time and memory that hold for all their descendants together.

Memory is the proportional share of all processes of a run, and never less than the most that the first of them had;
both are looked at every few milliseconds. Linux only: it reads ``/proc``.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CASE_LIMITS", "Ending", "Limits", "Run", "alive_in_session", "kilobytes", "run", "watch"]

_TICK = 0.02


@dataclass(frozen=True)
class Limits:
    """What a run may take.

    Parameters
    ----------
    processor_seconds : float
        Of all its processes.
    seconds : float
        On the clock: more, since a busy machine makes everything wait; for what hangs without computing.
    most_bytes : int
        Of all its processes at once.
    """

    processor_seconds: float = 60
    seconds: float = 240
    most_bytes: int = 2 << 30


CASE_LIMITS = Limits(10, 240, 1 << 30)
"""For one damaged model."""


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Parameters
    ----------
    code : int
        Its exit code, negative for a signal.
    seconds, processor_seconds : float
    peak : int
        Bytes of it and its descendants.
    exceeded : str
        The limit at which it was ended, empty if none.
    """

    code: int
    seconds: float
    processor_seconds: float
    peak: int
    exceeded: str = ""


@dataclass(frozen=True)
class Run:
    """A command that was run: how it ended, what it printed, and what outlived it."""

    ending: Ending
    out: str
    err: str
    survivors: tuple[int, ...] = field(default=())

    @property
    def code(self) -> int:
        """Return the exit code."""
        return self.ending.code


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    limits: Limits = Limits(),
    meanwhile: Callable[[int], None] | None = None,
) -> Run:
    """Run a command in a session of its own and wait for it; end what it leaves behind.

    Parameters
    ----------
    meanwhile : callable, optional
        Is called with the number of the process once it has been started; ends it, for instance.
    """
    files = [folder / f".{name}-of-the-attack" for name in ("out", "err")]
    with files[0].open("wb") as out, files[1].open("wb") as err:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
    try:
        if meanwhile is not None:
            meanwhile(child.pid)
        ending = watch(child.pid, limits)
        child.returncode = ending.code
        survivors = _outlive(child.pid)
    finally:
        for number in alive_in_session(child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
    printed = [path.read_text("utf-8", errors="backslashreplace") for path in files]
    for path in files:
        path.unlink()
    return Run(ending, *printed, survivors)


def _outlive(session: int, patience: float = 3.0) -> tuple[int, ...]:
    """Return the processes of a session that do not end by themselves in a few seconds."""
    until = time.monotonic() + patience
    while (left := alive_in_session(session)) and time.monotonic() < until:
        time.sleep(_TICK)
    return left


def alive_in_session(session: int) -> tuple[int, ...]:
    """Return the processes of a session that have not ended."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, *fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == session and state not in "ZX":
                    found.append(int(entry.name))
    return tuple(found)


def watch(number: int, limits: Limits) -> Ending:
    """Wait for a child process, and end it and its descendants where they take more than they may."""
    started, peak, processor, exceeded = time.monotonic(), 0, 0.0, ""
    descriptor = os.pidfd_open(number)
    try:
        while not select.select([descriptor], [], [], _TICK)[0]:
            family = _family(number)
            peak = max(peak, sum(map(_share, family)), _most(number))
            processor = max(processor, sum(map(_processor_seconds, family)))
            taken = {
                "memory": peak > limits.most_bytes,
                "processor": processor > limits.processor_seconds,
                "time": time.monotonic() - started > limits.seconds,
            }
            if any(taken.values()):
                exceeded = next(name for name, yes in taken.items() if yes)
                for each in reversed(family):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
        _, status, usage = os.wait4(number, 0)
    finally:
        os.close(descriptor)
    seconds = time.monotonic() - started
    processor = max(processor, usage.ru_utime + usage.ru_stime)
    return Ending(os.waitstatus_to_exitcode(status), seconds, processor, peak, exceeded)


def _family(number: int) -> list[int]:
    """Return a process and its descendants."""
    family = [number]
    for each in family:
        with contextlib.suppress(OSError):
            family.extend(map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split()))
    return family


def _share(number: int) -> int:
    """Return the bytes of memory of a process, those that it shares divided among those that share them."""
    return kilobytes(f"/proc/{number}/smaps_rollup", "Pss") << 10


def _most(number: int) -> int:
    """Return the most bytes that a process has had since it runs its program."""
    return kilobytes(f"/proc/{number}/status", "VmHWM") << 10


def kilobytes(path: str, name: str) -> int:
    """Return a figure of a file in ``/proc``, 0 where the process has ended."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+)", Path(path).read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0


def _processor_seconds(number: int) -> float:
    """Return the processor time of a process and of its children that have ended."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0
