# SPDX-License-Identifier: Apache-2.0
"""Python processes of their own: what may be killed, and what a run on two processes needs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

__all__ = ["ended", "start", "two_ranks"]

SUPPORT = Path(__file__).parent
LONGEST = 240
"""Seconds after which a child process is taken to hang."""


def start(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a script with one thread; it can import what lies in this folder, as tests can."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1", **environment},
    )


def ended(process: subprocess.Popen[str]) -> int:
    """Wait for the end of a process, which did its work or was killed; return its exit status."""
    _, err = process.communicate(timeout=LONGEST)
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode


def two_ranks() -> list[dict[str, str]]:
    """Return the environments in which accelerate takes two processes for one run, on the CPU of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    return [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
