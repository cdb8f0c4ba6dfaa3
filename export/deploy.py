# SPDX-License-Identifier: Apache-2.0
"""Deployment: which runtimes take a pruned network, and whether it computes there what it computes in onnxruntime.

::

    deployment = graphprune.deploy(pruned, model)
    for check in deployment.checks:
        print(check.runtime, check.pruned.status, check.timing)

Every runtime works in a child process with limits, so that one that crashes or hangs is an entry in a table. Beside
what it makes of the pruned network stands what it makes of the original: only where it takes that is the pruned one at
fault.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from graphprune.checks import contained
from graphprune.errors import OutputError, PluginError, RequestError, UsageError, quote
from graphprune.export.deployment import Deployment, DeployOptions, RuntimeCheck, RuntimeOutcome, number_format
from graphprune.export.runtime import RUNTIMES, Runtime, make_runtime
from graphprune.export.runtime_bench import REFERENCE, RuntimeBench
from graphprune.extras import EXTRAS, require_some
from graphprune.model.files.atomic import output_errors
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.graph import Graph
from graphprune.model.load import Model, check_loaded
from graphprune.model.normalize import inline_functions
from graphprune.model.sizes.fitting import fit_inputs
from graphprune.model.values.bodies import flatten
from graphprune.model.values.sequences import spell_out
from graphprune.phases import logged
from graphprune.verification.sizes import input_specs
from graphprune.verification.spec import Spec

if TYPE_CHECKING:
    from graphprune.array_types import Array
    from graphprune.data.source import Source

__all__ = ["check_folder", "check_names", "deploy", "installed", "require_runtimes"]


def installed() -> tuple[str, ...]:
    """Return the names of the runtimes that are installed, onnxruntime first."""
    return tuple(
        name for name, runtime in _known(_every()).items() if isinstance(runtime, Runtime) and not runtime.missing()
    )


def check_names(names: Sequence[str]) -> None:
    """Refuse names that no runtime has.

    Raises
    ------
    UsageError
    """
    _known(names)


def _every() -> tuple[str, ...]:
    """Return the names of all runtimes that are known of, onnxruntime first."""
    return tuple(sorted(RUNTIMES.names(), key=lambda name: (name != REFERENCE, name)))


def _known(names: Sequence[str]) -> dict[str, Runtime | PluginError]:
    """Look runtimes up; of one of another package that cannot be loaded the error is returned.

    Raises
    ------
    UsageError
        If there is none of a name.
    """
    found: dict[str, Runtime | PluginError] = {}
    for name in names:
        try:
            found[name] = make_runtime(name)
        except PluginError as error:
            found[name] = error
    return found


def require_runtimes(names: Sequence[str]) -> None:
    """Refuse runtimes that are asked for by name and are not installed.

    Raises
    ------
    UsageError
        Naming what is missing, and how it is installed.
    """
    for name in names:
        runtime = make_runtime(name)
        extra = set(EXTRAS["runtimes"]) & set(runtime.modules)
        if extra:
            require_some("runtimes", runtime.modules, f"the runtime {name}")
        elif missing := runtime.missing():
            raise UsageError(f"the runtime {name} cannot be used here: {missing}", hint=_OTHERS.get(name))


def require_one(names: Sequence[str]) -> None:
    """Refuse runtimes that are asked for by name where none of them is installed, so that nothing could be tried.

    Raises
    ------
    UsageError
        As :func:`require_runtimes`.
    """
    if names and all(make_runtime(name).missing() for name in names):
        require_runtimes(names)


def _advice(name: str, runtime: Runtime) -> str:
    """Return how a runtime is got that is not installed; empty where nobody knows."""
    if set(EXTRAS["runtimes"]) & set(runtime.modules):
        return "pip install 'graphprune[runtimes]'"
    return _OTHERS.get(name, "")


_OTHERS = {
    "cuda": "it needs a graphics processor of NVIDIA, and onnxruntime-gpu",
    "tensorrt": "pip install tensorrt, beside onnxruntime-gpu and a graphics processor of NVIDIA",
    "tflite": "pip install ai-edge-litert, and onnx2tf in an environment of its own (docs/runtimes.md)",
}


@logged("checking runtimes", lambda deployment: {"runtimes": len(deployment.checks), "worse": len(deployment.worse)})
@contained
def deploy(
    pruned: Model,
    original: Model | None = None,
    data: Source | None = None,
    options: DeployOptions | None = None,
    *,
    written: Mapping[str, Path] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Deployment:
    """Convert, run and time a pruned network in runtimes, and compare it with onnxruntime.

    Parameters
    ----------
    pruned : Model
    original : Model, optional
        What it was made of: runs beside it.
    data : Source, optional
        Samples to feed; random inputs by default.
    options : DeployOptions, optional
    written : mapping of str to Path, optional
        By runtime, a folder for what the pruned network was converted to; it must be empty or not there.
    progress : callable, optional
        Called with what is being done, how much of it is done, and how much there is to do.

    Returns
    -------
    Deployment

    Raises
    ------
    UsageError
        If there is no such runtime, or sizes do not fit.
    UnsupportedModelError
        If onnxruntime does not run the pruned network.
    RequestError
        If a runtime does not convert what is to be written.
    OutputError
        If that cannot be written.
    """
    options = options or DeployOptions()
    for model in filter(None, (pruned, original)):
        check_loaded(model)
    for name, folder in (written or {}).items():
        check_folder(name, folder)
    runtimes = _known(tuple(dict.fromkeys(options.runtimes or _every())))  # all are looked up before anything runs
    lowered = _lowered(pruned, original)
    tell = progress or (lambda *_: None)
    with scratch_folder() as place:
        bench = RuntimeBench(place, pruned, original, _batches(pruned, data, options), options)
        bench.refer()
        checks = []
        for at, (name, runtime) in enumerate(runtimes.items()):
            tell(name, at, len(runtimes))
            check = _check(bench, name, runtime)
            if isinstance(runtime, Runtime) and lowered in runtime.refused:
                check = replace(check, takes=False)
            checks.append(check)
            if written and name in written:
                _write(check, bench.converted(name), written[name])
        tell("", len(runtimes), len(runtimes))
        fed = "random inputs" if data is None else f"samples of {quote(data.name)}"
        return Deployment(tuple(checks), bench.signature.shapes, f"{len(bench.batches)} {fed}", lowered)


def _check(bench: RuntimeBench, name: str, runtime: Runtime | PluginError) -> RuntimeCheck:
    """Return what a runtime makes of everything; one that is missing or broken is an entry as well."""
    if isinstance(runtime, PluginError):
        broken = RuntimeOutcome("fails", step="load", reason=runtime.message)
        return RuntimeCheck(name, pruned=broken, dense=broken if bench.has_original else None)
    if missing := runtime.missing():
        return RuntimeCheck(name, missing=missing, advice=_advice(name, runtime))
    return bench.check(name, runtime.version())


def _lowered(pruned: Model, original: Model | None) -> Literal["", "int8", "fp16"]:
    """Return in what the pruned network is stored, where that is neither float32 nor what the original is stored in."""
    own = number_format(pruned.proto)
    same = original is not None and number_format(original.proto) == own
    return "" if own == "fp32" or same else own


def _batches(model: Model, data: Source | None, options: DeployOptions) -> list[dict[str, Array]]:
    """Return what is fed: samples, or numbers that are drawn."""
    flat = flatten(spell_out(inline_functions(model.proto)))
    graph = Graph(flat.proto)
    _, fit = fit_inputs(model, flat, graph, options.input_shapes)
    shapes = {name: fit.inputs[name] for name in graph.inputs if name in fit.inputs}
    if data is None:
        from graphprune.verification.plain_run import make_inputs  # with onnxruntime

        spec = Spec(inputs=input_specs(graph, shapes), tensors=[])
        return [make_inputs(spec, "normal", seed=options.seed + at) for at in range(options.samples)]
    few = data.limited(options.samples)
    batches = [dict(batch.feeds) for batch in few.batches(_batch_size(few, shapes))]
    whole = [batch for batch in batches if all(batch[name].shape == batches[0][name].shape for name in shapes)]
    return [{name: np.asarray(batch[name]) for name in shapes} for batch in whole]


def _batch_size(data: Source, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many samples go in at once: what the file fixes, or one."""
    first = data.read(np.zeros(1, np.int64))
    counted = [name for name in shapes if name not in first.shared]
    return shapes[counted[0]][first.axes.get(counted[0], 0)] if counted else 1


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder for converted files that holds something, or a runtime that has no files.

    Raises
    ------
    UsageError, OutputError
    """
    if not make_runtime(name).converts:
        raise UsageError(f"{name} reads ONNX files itself, so there is nothing to convert")
    shown = quote(str(folder))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{shown} exists and is no empty folder", hint="choose another place")
    if not folder.absolute().parent.is_dir() or not os.access(folder.absolute().parent, os.W_OK | os.X_OK):
        raise OutputError(f"{shown} cannot be made: its parent is no folder that can be written to")


def _write(check: RuntimeCheck, files: list[Path], folder: Path) -> None:
    """Copy what a network was converted to; the folder is there as a whole or not at all."""
    outcome = check.pruned
    if outcome is None or outcome.step in ("convert", "load") or not files:
        why = f"it needs {check.missing}" if outcome is None else outcome.reason
        raise RequestError(f"{check.runtime} does not take the network: {why}", hint="nothing was written")
    with output_errors(folder):
        hidden = folder.absolute().with_name(f".graphprune-{secrets.token_hex(8)}.tmp")
        try:
            hidden.mkdir()
            for file in files:
                shutil.copy(file, hidden / file.name)
            hidden.replace(folder.absolute())
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
