# SPDX-License-Identifier: Apache-2.0
"""Child processes of the library as forks: what runs a model still dies alone, but need not import anything first.

The library starts a new interpreter for every comparison, which is right for one model and slow for ten thousand small
ones. `use_forks` lets this process, in which everything is imported, fork them off instead.
"""

from __future__ import annotations

import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from attacks.processes import kilobytes

from graphprune.model.children import sandbox

__all__ = ["ForkedChild", "redirect", "use_forks"]

_OPEN_FILES = 256


def use_forks() -> None:
    """Let the library fork off its child processes."""
    import onnxruntime  # noqa: F401 - once for all forks

    sandbox.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=ForkedChild,
        PIPE=subprocess.PIPE,
        DEVNULL=subprocess.DEVNULL,
        TimeoutExpired=subprocess.TimeoutExpired,
    )


def redirect(target: Path) -> None:
    """Let all that this process prints go to a file."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115 - descriptors


class ForkedChild:
    """Stands in for `subprocess.Popen` where the sandbox starts ``python -P -m module folder``."""

    def __init__(self, command: list[str], *, stdin: int, **_: Any) -> None:
        module, folder = command[-2:]
        self.said = Path(folder) / "said-by-child.txt"
        self.returncode: int | None = None
        source, self._go = os.pipe() if stdin == subprocess.PIPE else (stdin, -1)
        self.pid = os.fork()
        if not self.pid:
            _become(module, folder, source, self.said)
        if self._go >= 0:
            os.close(source)

    def __enter__(self) -> ForkedChild:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the end."""
        if self._go >= 0:
            os.close(self._go)
        self._wait(None)

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[None, str]:
        """Let it begin, wait for its end, and return what it said."""
        if self._go >= 0:
            os.write(self._go, text.encode())
            os.close(self._go)
            self._go = -1
        self._wait(timeout)
        return None, self.said.read_text("utf-8", errors="replace") if self.said.exists() else ""

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, timeout: float | None) -> None:
        if self.returncode is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("fork", timeout or 0)
            finally:
                os.close(descriptor)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _become(module: str, folder: str, source: int, said: Path) -> NoReturn:
    """Run a module as a program in this process, which was forked for it, and end."""
    status = 1
    try:
        os.dup2(source, 0)
        os.closerange(3, _OPEN_FILES)  # the parent's end of the pipe above all
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor
        redirect(said)
        _allow_what_is_inherited()
        sys.argv = [module, folder]
        runpy.run_module(module, run_name="__main__")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _allow_what_is_inherited() -> None:
    """Let a limit of memory that this process takes on hold for what it adds to what its parent had imported."""
    inherited = kilobytes("/proc/self/status", "VmData") << 10
    limit = resource.setrlimit

    def raised(kind: int, limits: tuple[int, int]) -> None:
        limit(kind, (limits[0] + inherited, limits[1] + inherited) if kind == resource.RLIMIT_DATA else limits)

    resource.setrlimit = raised  # type: ignore[assignment]
