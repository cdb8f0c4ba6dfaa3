# SPDX-License-Identifier: Apache-2.0
"""A timed cell: how long networks, or single layers, take in one runtime (in the child process).

Run as ``python -m graphprune.export.timed_cell FOLDER``. Networks run in turn, in an order that changes from round to
round. Layers stand side by side as well, each a small network that runs once in each of several rounds, so that its
weights are as cold in the caches as in a whole network; what counts is its fastest run. Where a runtime does not tell
what single layers take (`Runtime.profile`), the call is timed, and of that goes what a network that does next to
nothing takes to bring as many numbers in and out.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, save

from graphprune.array_types import Array
from graphprune.cost.latency.bench import paired_rounds
from graphprune.export.cell import Steps, in_cell
from graphprune.export.runtime import ModelSignature, Runtime, make_runtime

__all__ = ["LAYER", "TimedModel", "TimedTask"]

LAYER = "layer"
"""The step in which a layer is worked on, with its number behind it."""
_TASK = "timed.json"
_RUNS = 15
_LEAST = 0.1  # share of a call that is a layer's own at least
_SMALL, _LARGE = (1, 4, 2, 2), (1, 16, 128, 128)


@dataclass(frozen=True)
class TimedModel:
    """One network.

    Attributes
    ----------
    file : str
    signature : ModelSignature
    """

    file: str
    signature: ModelSignature


@dataclass(frozen=True)
class TimedTask:
    """What a child is to do.

    Attributes
    ----------
    runtime : str
    models : tuple of TimedModel
    layers : bool
        Whether each is a layer that is timed alone; else they run in turn.
    """

    runtime: str
    models: tuple[TimedModel, ...]
    layers: bool = False

    def write(self, folder: Path) -> None:
        """Leave it for the child."""
        (folder / _TASK).write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> TimedTask:
        """Return what the parent has left."""
        given: dict[str, Any] = json.loads((folder / _TASK).read_text("utf-8"))
        models = tuple(TimedModel(one["file"], _signature(one["signature"])) for one in given["models"])
        return cls(given["runtime"], models, given["layers"])


def _signature(facts: Mapping[str, Any]) -> ModelSignature:
    shapes = {name: tuple(shape) for name, shape in facts["shapes"].items()}
    return ModelSignature(shapes, facts["dtypes"], tuple(facts["outputs"]))


def main(folder: str) -> int:
    """Do what the task says, and write down what came of it."""
    return in_cell(Path(folder), _done)


def _done(place: Path, steps: Steps) -> dict[str, Any]:
    task = TimedTask.read(place)
    runtime = make_runtime(task.runtime)
    return _layers(place, task, runtime, steps) if task.layers else _rounds(place, task, runtime, steps)


def _rounds(place: Path, task: TimedTask, runtime: Runtime, steps: Steps) -> dict[str, Any]:
    """Time networks against each other."""
    runs = []
    for number, model in enumerate(task.models):
        steps.begin("convert")
        converted = _converted(place, number, model, runtime)
        steps.begin("load")
        runs.append(partial(runtime.open(converted, model.signature), drawn(model.signature, normal=True)))
    steps.begin("run")
    return {"rounds": paired_rounds(runs, type(runtime).clock)}


def _layers(place: Path, task: TimedTask, runtime: Runtime, steps: Steps) -> dict[str, Any]:
    """Time layers alone; None stands for one that the runtime does not take."""
    calls: dict[int, _Call] = {}
    for number, model in enumerate(task.models):
        steps.begin(f"{LAYER} {number}")
        with contextlib.suppress(Exception):  # a runtime raises whatever it likes
            calls[number] = _Call(runtime, _converted(place, number, model, runtime), model.signature)
    empty: tuple[_Call, ...] = ()
    if not all(call.is_profiled for call in calls.values()):
        steps.begin("measure an empty network")
        empty = tuple(_Call(runtime, *_empty_network(place, runtime, shape)) for shape in (_SMALL, _LARGE))
    for _ in range(_RUNS):
        for number, call in calls.items():
            steps.begin(f"{LAYER} {number}")
            call.run()
        for call in empty:
            call.run()
    seconds = [calls[number].own(empty) if number in calls else None for number in range(len(task.models))]
    return {"seconds": seconds}


def _converted(place: Path, number: int, model: TimedModel, runtime: Runtime) -> Path:
    folder = place / f"converted {number}"
    folder.mkdir()
    return runtime.convert(Path(model.file), model.signature, folder)


class _Call:
    """A small network that is run again and again; the first run, which allocates, does not count.

    Parameters
    ----------
    runtime : Runtime
    path : Path
        What it was converted to.
    signature : ModelSignature

    Attributes
    ----------
    fastest : float
        Seconds.
    moved : int
        Numbers in inputs and outputs together, where the runtime does not tell what layers take.
    """

    def __init__(self, runtime: Runtime, path: Path, signature: ModelSignature) -> None:
        self._feeds = drawn(signature)
        self._clock = type(runtime).clock
        self._profiled = runtime.profile(path, signature)
        self.fastest, self.moved = math.inf, 0
        if self._profiled is not None:
            self._profiled(self._feeds)
            return
        self._open = runtime.open(path, signature)
        self.moved = sum(int(np.asarray(value).size) for value in (*self._feeds.values(), *self._open(self._feeds)))

    @property
    def is_profiled(self) -> bool:
        """Whether the runtime tells what layers take."""
        return self._profiled is not None

    def run(self) -> None:
        """Run it once."""
        if self._profiled is not None:
            self.fastest = min(self.fastest, self._profiled(self._feeds))
            return
        start = self._clock()
        self._open(self._feeds)
        self.fastest = min(self.fastest, self._clock() - start)

    def own(self, empty: Sequence[_Call]) -> float:
        """Return the seconds of its layers, given a small and a large network that do next to nothing."""
        if self._profiled is not None:
            return self.fastest
        small, large = empty
        each = max(0.0, large.fastest - small.fastest) / (large.moved - small.moved)
        return max(self.fastest - small.fastest - each * self.moved, _LEAST * self.fastest)


def _empty_network(place: Path, runtime: Runtime, shape: Sequence[int]) -> tuple[Path, ModelSignature]:
    """Return a network that does next to nothing, in the runtime's own form."""
    name = "x".join(map(str, shape))
    ends = (helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], name, [next(ends)], [next(ends)])
    file, folder = place / f"{name}.onnx", place / name
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    folder.mkdir()
    signature = ModelSignature({"x": tuple(shape)}, {"x": "float32"}, ("y",))
    return runtime.convert(file, signature, folder), signature


def drawn(signature: ModelSignature, *, normal: bool = False) -> dict[str, Array]:
    """Return inputs: normal noise, or small positive numbers, which are in the domain of every operator; else zeros."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for name, shape in signature.shapes.items():
        dtype = np.dtype(signature.dtypes[name])
        values = rng.standard_normal(shape) if normal else rng.uniform(0.001, 0.01, shape)
        feeds[name] = np.asarray(values if dtype.kind == "f" else 0 * values, dtype)
    return feeds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
