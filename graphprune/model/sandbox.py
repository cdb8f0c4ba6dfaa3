# SPDX-License-Identifier: Apache-2.0
"""The sandbox: modules of this package that run a model do so in a child process, with limits and a timeout.

A model is untrusted input: onnxruntime may crash, hang or eat all memory on a hostile one. The
child gets a folder with everything it needs and leaves ``result.json`` there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from graphprune.errors import GraphPruneError

__all__ = ["RESULT", "ChildError", "limit_memory", "limit_work", "run_child", "shortened"]

RESULT = "result.json"


class ChildError(GraphPruneError):
    """The child process did not finish: `message` says how it ended."""


def run_child(module: str, folder: Path, timeout: float) -> dict[str, Any]:
    """Run ``python -m module folder`` and return what it wrote to ``result.json``.

    Parameters
    ----------
    module : str
        A module of this package with a ``__main__`` part.
    folder : Path
        A private folder with its input.
    timeout : float
        Seconds after which it is ended.

    Raises
    ------
    ChildError
        If it does not finish in time, fails, or dies.
    """
    command = [sys.executable, "-P", "-m", module, str(folder)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, no shell
            command, capture_output=True, text=True, errors="replace", timeout=timeout, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ChildError(f"onnxruntime did not finish within {timeout:.0f} s") from error
    if done.returncode or not (folder / RESULT).exists():
        said = (done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"])[-1]
        raise ChildError(f"onnxruntime failed: {shortened(said)}")
    result: dict[str, Any] = json.loads((folder / RESULT).read_text("utf-8"))
    return result


def shortened(said: str) -> str:
    """Return what an error says, without its module, its number, and the temporary file that it names."""
    for noise in _NOISE:
        said = noise.sub("", said)
    return ascii(said[:_LONGEST])[1:-1]  # text of a model: control characters stay harmless


_NOISE = (
    re.compile(r"^(?:\w+\.)+(?=\w+: )"),
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from \S+ failed: ?"),
)
_LONGEST = 300


def limit_memory() -> None:
    """Refuse to grow beyond the machine's memory, where the system can enforce that; called by the child."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        total = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (total, total))


def limit_work(*, seconds: int, most_bytes: int) -> None:
    """End after some processor time and refuse to grow, where the system can enforce that; called by the child."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
