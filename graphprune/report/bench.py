# SPDX-License-Identifier: Apache-2.0
"""Paired timing: the original and the pruned model run in turn, so that a busy machine slows both alike.

One thread, CPU provider, default graph optimisation: what a user of onnxruntime gets. The
order of the two changes from pair to pair, and the ratio is the median over pairs.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnxruntime

__all__ = ["Timing", "paired_timing"]

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


@dataclass(frozen=True)
class Timing:
    """Seconds per run of both models (medians), and the median ratio of the pairs."""

    before: float
    after: float
    ratio: float
    pairs: int


def paired_timing(original: Path | bytes, pruned: Path | bytes, shapes: Mapping[str, tuple[int, ...]]) -> Timing:
    """Time two models with the same inputs against each other.

    Parameters
    ----------
    original, pruned : Path or bytes
        Files, or serialised models without external data.
    shapes : mapping of str to tuple of int
        Shapes of the inputs.

    Returns
    -------
    Timing

    Raises
    ------
    UnsupportedModelError
        If onnxruntime cannot run one of them, or an input has a type that cannot be drawn.
    """
    sessions = [_session(model) for model in (original, pruned)]
    feed = _feed(sessions[0], shapes)
    try:
        runs = [_runs_per_measurement(session, feed) for session in sessions]
        pairs = _measure(sessions, feed, max(runs))
    except Exception as error:
        raise UnsupportedModelError(f"onnxruntime cannot run the model: {str(error).splitlines()[0]}") from error
    before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Timing(before, after, statistics.median(b / a for a, b in pairs), len(pairs))


def _session(model: Path | bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UnsupportedModelError(f"onnxruntime cannot load the model: {str(error).splitlines()[0]}") from error


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


def _runs_per_measurement(session: onnxruntime.InferenceSession, feed: dict[str, Any]) -> int:
    _seconds(session, feed, 1)  # warm-up: the first run allocates
    return max(1, round(_SHORTEST / max(_seconds(session, feed, 1), 1e-6)))


def _measure(
    sessions: list[onnxruntime.InferenceSession], feed: dict[str, Any], runs: int
) -> list[tuple[float, float]]:
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(pairs) < _PAIRS and (len(pairs) < _FEWEST_PAIRS or time.perf_counter() - start < _SECONDS):
        order = (0, 1) if len(pairs) % 2 == 0 else (1, 0)
        times = [0.0, 0.0]
        for index in order:
            times[index] = _seconds(sessions[index], feed, runs)
        pairs.append((times[0], times[1]))
    return pairs


def _seconds(session: onnxruntime.InferenceSession, feed: dict[str, Any], runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        session.run(None, feed)
    return (time.perf_counter() - start) / runs
