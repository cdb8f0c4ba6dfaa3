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
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "OUT_OF_TIME",
    "RESULT",
    "ChildError",
    "limit_memory",
    "limit_work",
    "run_child",
    "shortened",
    "wait_for_parent",
]

RESULT = "result.json"
OUT_OF_TIME = "did not finish within"
_GO = "go\n"


class ChildError(GraphPruneError):
    """The child process did not finish: `message` says how it ended."""


def run_child(module: str, folder: Path, timeout: float, prepare: Callable[[], object] | None = None) -> dict[str, Any]:
    """Run ``python -m module folder`` and return what it wrote to ``result.json``.

    Parameters
    ----------
    module : str
        A module of this package with a ``__main__`` part.
    folder : Path
        A private folder with its input.
    timeout : float
        Seconds after which it is ended.
    prepare : callable, optional
        Puts the input there while the child starts; the module calls :func:`wait_for_parent`. It is not timed.

    Raises
    ------
    ChildError
        If it does not finish in time, fails, or dies.
    """
    command = [sys.executable, "-P", "-m", module, str(folder)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(  # noqa: S603 - a fixed command, no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
    ) as child:
        try:
            if prepare is not None:
                prepare()
            _, said = child.communicate(_GO, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise ChildError(f"onnxruntime {OUT_OF_TIME} {timeout:.0f} s") from error
        finally:
            child.kill()  # nothing where it has ended
    if child.returncode or not (folder / RESULT).exists():
        last = (said.strip().splitlines() or [f"the process ended with status {child.returncode}"])[-1]
        raise ChildError(f"onnxruntime failed: {shortened(last)}")
    result: dict[str, Any] = json.loads((folder / RESULT).read_text("utf-8"))
    return result


def wait_for_parent() -> None:
    """Wait until the input is there (in the child); end if the parent has ended."""
    if sys.stdin.readline() != _GO:
        sys.exit(1)


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
