# SPDX-License-Identifier: Apache-2.0
"""From an analysed model to its latency as a function of the widths: measured once, and then read from the cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.polynomial import Length
from graphprune.cost.latency.bench import time_model
from graphprune.cost.latency.cache import Cache
from graphprune.cost.latency.chunks import find_chunks
from graphprune.cost.latency.latency_cost import LatencyCost, ScaledChunk, TabledChunk
from graphprune.cost.latency.probe import measure, sample
from graphprune.cost.latency.time_table import grid, monotone, step_of
from graphprune.errors import UnsupportedModelError

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Ints
    from graphprune.cost.latency.chunks import Chunk
    from graphprune.cost.latency.environment import Environment
    from graphprune.cost.latency.probe import Sample


__all__ = ["latency_cost", "model_key"]

_NOTHING = np.ones(1, dtype=np.int64)
_LARGEST_SAMPLE = 1 << 28  # bytes of weights above which a chunk is measured at full width only


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be measured of one chunk: at all points of its grids, or at full width only."""

    chunk: Chunk
    full: Sample
    grids: tuple[Ints, Ints] | None
    samples: tuple[Sample, ...]


def latency_cost(analysis: Analysis, environment: Environment, cache: Cache, block: int) -> LatencyCost:
    """Measure what is not in the cache, and return the latency as a function of the widths.

    Parameters
    ----------
    analysis : Analysis
    environment : Environment
    cache : Cache
        Of this environment; what was measured is added to it.
    block : int
        Channels in a block of the fast kernels.

    Raises
    ------
    UnsupportedModelError
        If onnxruntime cannot run the model, or none of its layers alone.
    """
    plans = [_plan(analysis, chunk, block) for chunk in find_chunks(analysis)]
    whole = _whole(analysis, environment, cache)
    wanted = {one.key: one for plan in plans for one in plan.samples}
    cache.kernels.update(measure([one for key, one in wanted.items() if key not in cache.kernels], environment))
    cache.save()
    total = sum(cache.kernels.get(plan.full.key, 0) for plan in plans)
    if not total:
        raise UnsupportedModelError("onnxruntime runs none of the model's layers alone, so that none can be measured")
    return _cost(analysis, plans, cache.kernels, (whole / total, block))


def model_key(analysis: Analysis) -> str:
    """Return under which key the cache holds times of the whole model."""
    shapes = sorted((name, tuple(shape)) for name, shape in analysis.input_shapes.items())
    return hashlib.sha256(f"{analysis.model.sha256} {shapes}".encode()).hexdigest()[:32]


def _whole(analysis: Analysis, environment: Environment, cache: Cache) -> int:
    key = model_key(analysis)
    if key not in cache.models:
        model = analysis.model
        source = model.path or model.proto.SerializeToString()
        cache.models[key] = max(1, time_model(source, analysis.input_shapes, environment))
    return cache.models[key]


def _plan(analysis: Analysis, chunk: Chunk, block: int) -> _Plan:
    full = sample(analysis, chunk, tuple(length.full for length in chunk.features))
    if not chunk.features or not chunk.measurable or full.weight > _LARGEST_SAMPLE:
        return _Plan(chunk, full, None, (full,))
    axes = [grid(length.full, block) for length in chunk.features]
    points = (tuple(int(length) for length in point) for point in product(*axes))
    samples = tuple(sample(analysis, chunk, point) for point in points)
    return _Plan(chunk, full, (axes[0], axes[1] if len(axes) > 1 else _NOTHING), samples)


def _cost(analysis: Analysis, plans: list[_Plan], times: dict[str, int], scale: tuple[float, int]) -> LatencyCost:
    """Put the cost together; `scale` are the factor of all times, and the block."""
    factor, block = scale
    tabled: list[TabledChunk] = []
    scaled: list[ScaledChunk] = []
    fixed = 0
    for plan in plans:
        time = factor * times.get(plan.full.key, 0)
        if not plan.chunk.features:
            fixed += round(time)
        elif plan.grids is None or any(one.key not in times for one in plan.samples):
            scaled.append(ScaledChunk(time, plan.chunk.work))
        else:
            measured = np.array([times[one.key] for one in plan.samples], dtype=np.float64)
            shape = tuple(len(axis) for axis in plan.grids)
            values = np.round(factor * monotone(measured.reshape(shape)))
            tabled.append(TabledChunk(*_axes(plan.chunk, block, plan.grids), values))
    return LatencyCost(tabled, scaled, fixed, analysis.cost.sizes)


def _axes(
    chunk: Chunk, block: int, grids: tuple[Ints, Ints]
) -> tuple[tuple[Length, Length], tuple[Ints, Ints], tuple[int, int]]:
    """Return lengths, grids and steps of both axes of a table."""
    lengths = list(chunk.features) + [Length.fixed(1)] * (2 - len(chunk.features))
    first, second = lengths
    return (first, second), grids, (step_of(first.full, block), step_of(second.full, block))
