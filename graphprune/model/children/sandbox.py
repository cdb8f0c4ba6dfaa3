# SPDX-License-Identifier: Apache-2.0
"""The sandbox: modules of this package that run a model do so in a child process, with limits and a timeout.

A model is untrusted input: onnxruntime may crash, hang or eat all memory on a hostile one. The child gets a folder with
everything it needs and leaves ``result.json`` there. What it may use follows from the model
(:mod:`graphprune.model.children.allowance`), and it ends when its parent does
(:mod:`graphprune.model.children.lifeline`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.errors import GraphPruneError, UnsafeModelError, clipped
from graphprune.model.children.allowance import Allowance
from graphprune.model.children.lifeline import follow_pipe

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OUT_OF_TIME", "RESULT", "ChildError", "enter_sandbox", "run_child", "shortened", "unless_exhausted"]

RESULT = "result.json"
OUT_OF_TIME = "did not finish within"


class ChildError(GraphPruneError):
    """The child process did not finish: `message` says how it ended."""


def run_child(
    module: str,
    folder: Path,
    allowance: Allowance,
    prepare: Callable[[], object] | None = None,
    *,
    runtime: str = "onnxruntime",
) -> dict[str, Any]:
    """Run ``python -m module folder`` and return what it wrote to ``result.json``.

    Parameters
    ----------
    module : str
        A module of this package with a ``__main__`` part, which calls :func:`enter_sandbox` first of all.
    folder : Path
        A private folder with its input.
    allowance : Allowance
        What it may use.
    prepare : callable, optional
        Puts the input there while the child starts. It is not timed.
    runtime : str
        What runs the model there, for messages.

    Raises
    ------
    ChildError
        If it does not finish in time, fails, or dies.
    UnsafeModelError
        If it takes more memory or processor time than it may.
    """
    command = [sys.executable, "-P", "-m", module, str(folder)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    lifeline, held = os.pipe()
    try:
        with subprocess.Popen(  # noqa: S603 - a fixed command, no shell
            command,
            stdin=lifeline,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        ) as child:
            try:
                if prepare is not None:
                    prepare()
                with contextlib.suppress(BrokenPipeError):  # it has ended already, and says below why
                    os.write(held, json.dumps(asdict(allowance)).encode() + b"\n")
                _, said = child.communicate(timeout=allowance.patience)
            except subprocess.TimeoutExpired as error:
                raise ChildError(f"{runtime} {OUT_OF_TIME} {allowance.patience:.0f} s") from error
            finally:
                child.kill()  # nothing where it has ended
    finally:
        os.close(lifeline)
        os.close(held)
    if child.returncode or not (folder / RESULT).exists():
        raise _ending(child.returncode, said, allowance, runtime)
    result: dict[str, Any] = json.loads((folder / RESULT).read_text("utf-8"))
    return result


def _ending(code: int, said: str, allowance: Allowance, runtime: str) -> GraphPruneError:
    """Return how a child has ended."""
    last = shortened((said.strip().splitlines() or [f"the process ended with status {code}"])[-1])
    if code and code == _KILLED_BY_TIME:
        return UnsafeModelError(
            f"the model is still running after {allowance.seconds} s of processor time, "
            "which is far more than its operators should take",
            hint=f"check that it comes to an end in {runtime}, for inputs of zeros too",
        )
    if _NO_MEMORY.search(said):
        return UnsafeModelError(
            f"running the model takes more than the {allowance.most_bytes / 1e9:.1f} GB of memory that are allowed "
            f"for a model of its size: {last}",
            hint=f"give smaller inputs with --input-shape NAME=SIZES, or check what it makes in {runtime}",
        )
    return ChildError(f"{runtime} failed: {last}")


def enter_sandbox() -> None:
    """Begin a child: end with the parent, wait until the input is there, and take on the limits."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, _LINE)
        if not piece:
            sys.exit(1)  # the parent has ended
        line += piece
    follow_pipe(0)
    _limit(Allowance(**json.loads(line)))


def _limit(allowance: Allowance) -> None:
    """End after some processor time and refuse to grow, where the system can enforce that."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if allowance.seconds:
            used = resource.getrusage(resource.RUSAGE_SELF)
            seconds = int(used.ru_utime + used.ru_stime) + 1 + allowance.seconds
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (allowance.most_bytes, allowance.most_bytes))


def unless_exhausted(error: Exception) -> Exception:
    """Return what a run raised; in a child whose memory has run out, end it with that.

    Raises
    ------
    MemoryError
        If it is the memory of which there is too little: that says nothing of the model that happened to run.
    """
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        raise MemoryError(str(error)) from error
    return error


def shortened(said: str) -> str:
    """Return what an error says, without its module, its number, its place in C++, and the file that it names."""
    for noise in _NOISE:
        said = noise.sub("", said)
    return clipped(said)


_KILLED_BY_TIME = -getattr(signal, "SIGXCPU", 0)
_NO_MEMORY = re.compile(r"bad_?\s?alloc|MemoryError|(?:Failed|Unable|Cannot) to allocate|Cannot allocate memory")
_LINE = 1 << 12
_NOISE = (
    re.compile(r"^(?:\w+\.)+(?=\w+: )"),
    re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : "),
    re.compile(r"Load model from \S+ failed: ?"),
    re.compile(r"/onnxruntime_src/\S+:\d+ [^()]*\([^()]*\)(?: const)?(?: \[with [^\]]*\])? "),
)
