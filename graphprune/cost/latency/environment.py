# SPDX-License-Identifier: Apache-2.0
"""Where latencies are measured: which runtime, its version, provider and threads, and the processor."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphprune.data.providers import CPU, CUDA, current
from graphprune.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnxruntime

__all__ = ["ONNXRUNTIME", "Environment", "clock", "here", "open_session", "processor_name"]

ONNXRUNTIME = "onnxruntime"
"""The runtime in which everything is measured where nothing else is asked for."""


@dataclass(frozen=True)
class Environment:
    """What a measured time holds for.

    Attributes
    ----------
    runtime : str
        Its name in the registry of runtimes.
    version : str
    provider : str
        Of onnxruntime; empty for other runtimes.
    threads : int
    processor : str
        Name of its model.
    """

    runtime: str
    version: str
    provider: str
    threads: int
    processor: str

    def as_json(self) -> dict[str, Any]:
        """Return the environment as a JSON object."""
        return asdict(self)


def here(threads: int = 1) -> Environment:
    """Return that of onnxruntime in this process."""
    import onnxruntime

    provider = CPU if current().name == "cpu" else CUDA
    return Environment(ONNXRUNTIME, onnxruntime.__version__, provider, threads, processor_name())


def processor_name() -> str:
    """Return the processor's name, from where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def clock(environment: Environment) -> Callable[[], float]:
    """Return the clock to measure with.

    With one thread everything runs on the thread that calls, and its processor time is what a run takes when nothing
    else disturbs it; with several, or on a graphics processor, only the time on the wall tells.
    """
    alone = environment.threads == 1 and environment.provider == CPU
    return time.thread_time if alone else time.perf_counter


def open_session(
    source: Path | bytes, environment: Environment, profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a model into onnxruntime with its default optimisation.

    Raises
    ------
    UnsupportedModelError
        If onnxruntime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = environment.threads, 1
    options.log_severity_level = 4
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    model = source if isinstance(source, bytes) else str(source)
    providers = [CPU] if environment.provider == CPU else current().providers
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:
        raise UnsupportedModelError(f"onnxruntime cannot load the model: {str(error).splitlines()[0]}") from error
