# SPDX-License-Identifier: Apache-2.0
"""A cell: what one runtime makes of one network, or how long two take in it (in the child process).

Run as ``python -m graphprune.export.cell FOLDER``. Whatever a runtime raises is written down with the step in which it
did; what it prints goes to a file, and of a process that crashes that file and the step are left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graphprune.array_types import Array
from graphprune.cost.latency.bench import paired_rounds
from graphprune.export.runtime import ModelSignature, Runtime, make_runtime
from graphprune.model.children.sandbox import RESULT, enter_sandbox, shortened

__all__ = [
    "CONVERTED",
    "FEEDS",
    "OUTPUTS",
    "SAID",
    "STEP",
    "CellTask",
    "Steps",
    "gist",
    "in_cell",
    "read_arrays",
    "write_arrays",
]

FEEDS = "feeds.npz"
OUTPUTS = "outputs.npz"
CONVERTED = "converted"
SAID = "said.txt"
STEP = "step.txt"
_TASK = "task.json"
_LINES = 2


@dataclass(frozen=True)
class CellTask:
    """What a child is to do.

    Attributes
    ----------
    runtime : str
    model : str
        The ONNX file that is converted, loaded and run; empty where networks are timed.
    timed : tuple of str
        What two converted networks were converted to, to be timed against each other.
    signature : ModelSignature
        Of all of them.
    """

    runtime: str
    signature: ModelSignature
    model: str = ""
    timed: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Leave it for the child."""
        (folder / _TASK).write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> CellTask:
        """Return what the parent has left."""
        given: dict[str, Any] = json.loads((folder / _TASK).read_text("utf-8"))
        facts = given["signature"]
        shapes = {name: tuple(shape) for name, shape in facts["shapes"].items()}
        signature = ModelSignature(shapes, facts["dtypes"], tuple(facts["outputs"]))
        return cls(given["runtime"], signature, given["model"], tuple(given["timed"]))


def write_arrays(path: Path, batches: list[dict[str, Array]]) -> None:
    """Write arrays by name, for several batches."""
    named: dict[str, Any] = {f"{at} {name}": value for at, one in enumerate(batches) for name, value in one.items()}
    np.savez(path, **named)


def read_arrays(path: Path) -> list[dict[str, Array]]:
    """Return what :func:`write_arrays` wrote."""
    batches: dict[int, dict[str, Array]] = {}
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            at, _, name = key.partition(" ")
            batches.setdefault(int(at), {})[name] = stored[key]
    return [batches[at] for at in sorted(batches)]


class Steps:
    """Says in a file what is being done, for the case that the process does not live to tell."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STEP
        self.now = ""

    def begin(self, step: str) -> None:
        """Say what begins."""
        self.now = step
        self._path.write_text(step, "utf-8")


def main(folder: str) -> int:
    """Do what the task says, and write down what came of it."""
    return in_cell(Path(folder), _done)


def in_cell(place: Path, work: Callable[[Path, Steps], dict[str, Any]]) -> int:
    """Do some work in the child process and write down what came of it; does not return.

    Parameters
    ----------
    place : Path
        The folder of the task.
    work : callable
        Is given the folder, and says in which step it is; returns what is reported.
    """
    enter_sandbox()
    said = os.open(place / SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    steps = Steps(place)
    steps.begin("load")
    try:
        report = work(place, steps)
    except Exception as error:  # a runtime raises whatever it likes
        report = {"step": steps.now, "problem": gist(error), "raised": type(error).__name__}
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Windows has no such handle
        ctypes.CDLL(None).fflush(None)  # what libraries have printed
    (place / RESULT).write_text(json.dumps(report), "utf-8")
    os._exit(0)  # some runtimes crash on their way out, after everything is done


def _done(place: Path, steps: Steps) -> dict[str, Any]:
    task = CellTask.read(place)
    runtime = make_runtime(task.runtime)
    return (_time if task.timed else _try)(place, task, runtime, steps)


def gist(error: Exception) -> str:
    """Return the first lines of a message that say more than a place in the source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    telling = [line for line in lines if not line.endswith(":")] or lines
    return shortened("; ".join(telling[:_LINES]))


def _try(place: Path, task: CellTask, runtime: Runtime, steps: Steps) -> dict[str, Any]:
    """Convert, load and run a network; its outputs are left in a file."""
    steps.begin("convert")
    folder = place / CONVERTED
    folder.mkdir()
    converted = runtime.convert(Path(task.model), task.signature, folder)
    steps.begin("load")
    run = runtime.open(converted, task.signature)
    steps.begin("run")
    outputs = []
    for feeds in read_arrays(place / FEEDS):
        values = run(feeds)
        if len(values) != len(task.signature.outputs):
            raise RuntimeError(f"it gives {len(values)} outputs instead of {len(task.signature.outputs)}")
        outputs.append({str(at): np.asarray(value) for at, value in enumerate(values)})
    write_arrays(place / OUTPUTS, outputs)
    return {"converted": str(converted)}


def _time(place: Path, task: CellTask, runtime: Runtime, steps: Steps) -> dict[str, Any]:
    """Time converted networks against each other."""
    runs = [runtime.open(Path(path), task.signature) for path in task.timed]
    steps.begin("run")
    feeds = read_arrays(place / FEEDS)[0]
    return {"rounds": paired_rounds([partial(run, feeds) for run in runs], type(runtime).clock)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
