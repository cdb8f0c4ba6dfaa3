# SPDX-License-Identifier: Apache-2.0
"""Paired timing: the original and the pruned model run in turn, so that a busy machine slows both alike.

In onnxruntime with default graph optimisation and one thread, which is what its users get, or where a stopwatch says.
The order of the two changes from pair to pair, and the ratio is the median over pairs.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.cost.latency.environment import ONNXRUNTIME, clock, here, open_session
from graphprune.errors import UnsupportedModelError
from graphprune.plan.schema import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnxruntime

    from graphprune.cost.latency.environment import Environment
    from graphprune.cost.latency.stopwatch import Stopwatch

__all__ = ["paired_rounds", "paired_timing", "session_rounds", "summarised", "time_model"]

_PAIRS = 25
_FEWEST_PAIRS = 3
_SECONDS = 4.0
_SHORTEST = 0.002  # seconds; faster models run several times per measurement

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def paired_timing(
    original: Path | bytes,
    pruned: Path | bytes,
    shapes: Mapping[str, tuple[int, ...]],
    stopwatch: Stopwatch | None = None,
) -> Timing:
    """Time two models with the same inputs against each other.

    Parameters
    ----------
    original, pruned : Path or bytes
        Files, or serialised models without external data.
    shapes : mapping of str to tuple of int
        Shapes of the inputs.
    stopwatch : Stopwatch, optional
        Where they run: by default in onnxruntime, in this process, with one thread.

    Returns
    -------
    Timing

    Raises
    ------
    UnsupportedModelError
        If one of them does not run there, or an input has a type that cannot be drawn.
    """
    models = [original, pruned]
    if stopwatch is None:
        return summarised(session_rounds(models, shapes, here()))
    return summarised(stopwatch.rounds(models, shapes), stopwatch.environment.runtime)


def time_model(source: Path | bytes, shapes: Mapping[str, tuple[int, ...]], stopwatch: Stopwatch) -> int:
    """Return the nanoseconds that a model takes, the median of many runs.

    Raises
    ------
    UnsupportedModelError
        If it does not run there, or an input has a type that cannot be drawn.
    """
    return round(1e9 * statistics.median(one for (one,) in stopwatch.rounds([source], shapes)))


def session_rounds(
    models: Sequence[Path | bytes], shapes: Mapping[str, tuple[int, ...]], environment: Environment
) -> list[tuple[float, ...]]:
    """Return the seconds of each model in each round, in sessions of onnxruntime that this process opens.

    Raises
    ------
    UnsupportedModelError
        If onnxruntime cannot run one of them, or an input has a type that cannot be drawn.
    """
    sessions = [open_session(model, environment) for model in models]
    feed = _feed(sessions[0], shapes)
    try:
        return paired_rounds([partial(session.run, None, feed) for session in sessions], clock(environment))
    except Exception as error:
        raise UnsupportedModelError(f"onnxruntime cannot run the model: {str(error).splitlines()[0]}") from error


def paired_rounds(runs: Sequence[Callable[[], object]], watch: Callable[[], float]) -> list[tuple[float, ...]]:
    """Time several calls in turn, in an order that changes from round to round.

    Parameters
    ----------
    runs : sequence of callable
        Each runs one network once.
    watch : callable
        The clock, in seconds.

    Returns
    -------
    list of tuple of float
        For each round the seconds of each call.
    """
    times = max(_runs_per_measurement(run, watch) for run in runs)
    rounds: list[tuple[float, ...]] = []
    start = time.perf_counter()
    while len(rounds) < _PAIRS and (len(rounds) < _FEWEST_PAIRS or time.perf_counter() - start < _SECONDS):
        order = range(len(runs)) if len(rounds) % 2 == 0 else reversed(range(len(runs)))
        taken = {index: _seconds(runs[index], times, watch) for index in order}
        rounds.append(tuple(taken[index] for index in range(len(runs))))
    return rounds


def summarised(rounds: Sequence[tuple[float, ...]], runtime: str = ONNXRUNTIME) -> Timing:
    """Return the medians of pairs, and that of their ratios."""
    before, after = (statistics.median(column) for column in zip(*rounds, strict=True))
    return Timing(before, after, statistics.median(b / a for a, b in rounds), len(rounds), runtime)


def _feed(session: onnxruntime.InferenceSession, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return normal noise for real inputs and zeros for all others, which are valid indices and lengths."""
    rng = np.random.default_rng(0)
    feed: dict[str, Any] = {}
    for value in session.get_inputs():
        dtype = _TYPES.get(value.type)
        shape = shapes.get(value.name)
        if dtype is None or shape is None:
            raise UnsupportedModelError(f"cannot draw an input of type {value.type} for the timing")
        floating = np.issubdtype(dtype, np.floating)
        feed[value.name] = rng.standard_normal(shape).astype(dtype) if floating else np.zeros(shape, dtype)
    return feed


def _runs_per_measurement(run: Callable[[], object], watch: Callable[[], float]) -> int:
    _seconds(run, 1, watch)  # warm-up: the first run allocates
    return max(1, round(_SHORTEST / max(_seconds(run, 1, watch), 1e-6)))


def _seconds(run: Callable[[], object], times: int, watch: Callable[[], float]) -> float:
    start = watch()
    for _ in range(times):
        run()
    return (watch() - start) / times
