# SPDX-License-Identifier: Apache-2.0
"""Which processes are alive, and waiting until they are not."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable

__all__ = ["alive", "descendants", "wait_until"]


def _listed() -> dict[int, tuple[int, str]]:
    """Return parent and state of every process."""
    done = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in done.stdout.splitlines())
    return {int(pid): (int(parent), state) for pid, parent, state in rows}


def alive(pids: Iterable[int]) -> list[int]:
    """Return those processes that have not ended; one that nobody has waited for yet has ended all the same."""
    listed = _listed()
    return [pid for pid in pids if pid in listed and not listed[pid][1].startswith("Z")]


def descendants(root: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    listed = _listed()
    found, at = [root], 0
    while at < len(found):
        found += [pid for pid, (parent, _) in listed.items() if parent == found[at]]
        at += 1
    return found[1:]


def wait_until(happened: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until something has happened; return whether it did."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return True
        time.sleep(0.05)
    return happened()
