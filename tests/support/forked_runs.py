# SPDX-License-Identifier: Apache-2.0
"""Runs in processes of their own that share one import of torch: a server imports it once, and each run is forked off.

What takes seconds in a new interpreter takes a moment here. A run is a function of a module in this folder.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = ["ForkedRun", "rendezvous", "start"]

_PATIENCE = 240
_server = multiprocessing.get_context("forkserver")
# An optimiser of torch imports `torch._dynamo` at its first use, which takes longer than all the rest.
_server.set_forkserver_preload(
    [
        "accelerate",
        "torch._dynamo",
        "torch.distributed.fsdp",
        "graphprune.accuracy",
        "graphprune.training.finetune",
        "graphprune.training.pruning.train",
    ]
)


@dataclass(frozen=True)
class ForkedRun:
    """A run that was started.

    Parameters
    ----------
    process : BaseProcess
    output : Path
        What it prints, standard error included.
    """

    process: BaseProcess
    output: Path

    @property
    def pid(self) -> int:
        """Its number."""
        assert self.process.pid is not None
        return self.process.pid

    def ended(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        self.process.join(_PATIENCE)
        assert self.process.exitcode is not None, f"still running: {self.printed()}"
        return self.process.exitcode

    def printed(self) -> str:
        """Return what it printed so far."""
        return self.output.read_text(encoding="utf-8")


def start(folder: Path, work: Callable[..., None], *arguments: object, **environment: str) -> ForkedRun:
    """Start a run.

    Parameters
    ----------
    folder : Path
        Takes what it prints.
    work : callable
        Of a module in this folder; ends with code 0 if it returns.
    arguments : object
    environment : str
        Variables of its environment.
    """
    handle, name = tempfile.mkstemp(prefix="printed-", suffix=".txt", dir=folder)
    os.close(handle)
    process = _server.Process(target=_run, args=(work, arguments, environment, name), daemon=True)
    process.start()
    return ForkedRun(process, Path(name))


def rendezvous() -> dict[str, str]:
    """Return the variables by which two processes find each other, but for their ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}


def _run(work: Callable[..., None], arguments: tuple[object, ...], environment: dict[str, str], output: str) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    target = os.open(output, os.O_WRONLY)
    os.dup2(target, 1)
    os.dup2(target, 2)
    work(*arguments)
