# SPDX-License-Identifier: Apache-2.0
"""Stopwatches for all runtimes: what runs in a child process there, with limits, and what it took.

::

    plan = graphprune.solve(model, latency=0.5, options=SolveOptions(runtime="openvino"))

A runtime adds itself by its one file: whatever converts and runs networks for `deploy` can time layers for a latency
budget, more precisely where it tells what single layers take (`Runtime.profile`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, shape_inference

from graphprune.cost.latency.environment import ONNXRUNTIME, Environment, processor_name
from graphprune.cost.latency.probe import sample_model
from graphprune.cost.latency.session_stopwatch import SessionStopwatch
from graphprune.errors import GraphPruneError, UnsupportedModelError
from graphprune.export.cell import STEP
from graphprune.export.deploy import require_runtimes
from graphprune.export.runtime import ModelSignature, make_runtime
from graphprune.export.timed_cell import LAYER, TimedModel, TimedTask
from graphprune.model.children.allowance import Allowance
from graphprune.model.children.sandbox import run_child
from graphprune.model.files.main_memory import main_memory
from graphprune.model.files.scratch import scratch_folder

if TYPE_CHECKING:
    from graphprune.cost.latency.probe import Sample
    from graphprune.cost.latency.stopwatch import Stopwatch

__all__ = ["RuntimeStopwatch", "stopwatch_for"]

_PATIENCE = 300.0  # seconds for whole networks
_FOR_LAYERS, _FOR_EACH = 60.0, 5.0  # seconds for some layers, and for each of them
_PROCESSES = 3
_BATCH = 32
_MOST_ENDS = 5


def stopwatch_for(runtime: str = ONNXRUNTIME, threads: int = 1) -> Stopwatch:
    """Return what times models in a runtime.

    Parameters
    ----------
    runtime : str
        A name in :mod:`graphprune.export.runtimes`.
    threads : int
        Of onnxruntime; the others use one.

    Raises
    ------
    UsageError
        If there is none of that name, or it is not installed; the message says what to install.
    """
    if runtime == ONNXRUNTIME:
        return SessionStopwatch(threads)
    require_runtimes([runtime])
    return RuntimeStopwatch(runtime)


class RuntimeStopwatch:
    """Times models in a runtime, in child processes.

    Parameters
    ----------
    name : str
        Of the runtime.

    Attributes
    ----------
    environment : Environment
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.environment = Environment(name, make_runtime(name).version(), "", 1, processor_name())
        self._ends = 0

    def rounds(self, models: Sequence[Path | bytes], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[float, ...]]:
        """Run networks in turn, in several processes one after another: where memory lies makes some percent.

        Raises
        ------
        UnsupportedModelError
            If the runtime does not convert, load or run one of them.
        """
        with scratch_folder() as place:
            timed = tuple(_staged(model, shapes, place / f"{number}.onnx") for number, model in enumerate(models))
            rounds: list[tuple[float, ...]] = []
            for number in range(_PROCESSES):
                own = place / f"process {number}"
                own.mkdir()
                report = self._run(own, TimedTask(self._name, timed), _PATIENCE * len(models))
                if "problem" in report:
                    raise UnsupportedModelError(
                        f"{self._name} does not {report['step']} the model: {report['problem']}",
                        hint=f"`graphprune deploy MODEL --check {self._name}` says more; or measure in onnxruntime",
                    )
                rounds += [tuple(one) for one in report["rounds"]]
        return rounds

    def layers(self, samples: Sequence[Sample]) -> Iterator[dict[str, int]]:
        """Measure samples, each a small network of its own; one with which the child ends is left out.

        Raises
        ------
        UnsupportedModelError
            If that happens again and again.
        """
        waiting = list(samples)
        while waiting:
            batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
            seconds, culprit = self._batch(batch)
            if culprit is None:
                yield {
                    one.key: max(1, round(1e9 * time))
                    for one, time in zip(batch, seconds, strict=True)
                    if time is not None
                }
            else:
                waiting = [*batch[:culprit], *batch[culprit + 1 :], *waiting]

    def _batch(self, batch: Sequence[Sample]) -> tuple[list[float | None], int | None]:
        """Return the seconds of each sample, or the number of that with which the child ended."""
        with scratch_folder() as place:
            models = tuple(_sample_file(one, place / f"{number}.onnx") for number, one in enumerate(batch))
            report = self._run(place, TimedTask(self._name, models, layers=True), _FOR_LAYERS + _FOR_EACH * len(batch))
        if "problem" not in report:
            return report["seconds"], None
        self._ends += 1
        step, _, number = str(report["step"]).partition(" ")
        if step != LAYER or self._ends > _MOST_ENDS:
            raise UnsupportedModelError(f"{self._name} cannot measure single layers: {report['problem']}")
        return [], int(number)

    def _run(self, place: Path, task: TimedTask, patience: float) -> dict[str, Any]:
        """Run a child; how it ended is a problem among others."""
        task.write(place)
        allowance = Allowance(patience, 0, main_memory() // 2)
        try:
            return run_child("graphprune.export.timed_cell", place, allowance, runtime=self._name)
        except GraphPruneError as error:
            step = (place / STEP).read_text("utf-8") if (place / STEP).exists() else "load"
            return {"problem": error.message, "step": step}


def _staged(model: Path | bytes, shapes: Mapping[str, tuple[int, ...]], file: Path) -> TimedModel:
    """Return a network for the child; one in memory becomes a file."""
    if isinstance(model, bytes):
        file.write_bytes(model)
    path = file if isinstance(model, bytes) else model.resolve()
    return TimedModel(str(path), _signature(onnx.load(path, load_external_data=False), shapes))


def _sample_file(one: Sample, file: Path) -> TimedModel:
    """Write a layer as a network of its own, whose outputs have types, which some runtimes ask for."""
    bare, feeds = sample_model([one])
    model = shape_inference.infer_shapes(bare)
    onnx.save(model, file)
    return TimedModel(str(file), _signature(model, {name: value.shape for name, value in feeds.items()}))


def _signature(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ModelSignature:
    """Return what goes into a network and comes out.

    Raises
    ------
    UnsupportedModelError
        If the shape of an input is not known.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    for value in inputs:
        if value.name not in shapes or not value.type.HasField("tensor_type"):
            raise UnsupportedModelError(f"the input {value.name!r} cannot be drawn for the timing")
    dtypes = {value.name: str(_dtype(value)) for value in inputs}
    known = {value.name: tuple(int(size) for size in shapes[value.name]) for value in inputs}
    return ModelSignature(known, dtypes, tuple(value.name for value in model.graph.output))


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
