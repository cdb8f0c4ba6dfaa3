# SPDX-License-Identifier: Apache-2.0
"""From an analysed model to its latency as a function of the widths: measured once, and then read from the cache."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from graphprune.analysis.polynomial import Length
from graphprune.cost.latency.bench import time_model
from graphprune.cost.latency.cache import Cache
from graphprune.cost.latency.chunks import find_chunks
from graphprune.cost.latency.efficiency import PER_ELEMENT
from graphprune.cost.latency.latency_cost import LatencyCost, ScaledChunk, TabledChunk
from graphprune.cost.latency.probe import sample
from graphprune.cost.latency.time_table import grid, monotone, step_of
from graphprune.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.array_types import Ints
    from graphprune.cost.latency.chunks import Chunk
    from graphprune.cost.latency.probe import Sample
    from graphprune.cost.latency.stopwatch import Stopwatch


__all__ = ["MeasuredLatency", "latency_cost", "model_key"]

_NOTHING = np.ones(1, dtype=np.int64)
_LARGEST_SAMPLE = 1 << 28  # bytes of weights above which a chunk is measured at full width only


@dataclass(frozen=True, eq=False)
class MeasuredLatency:
    """What was measured of a network.

    Attributes
    ----------
    cost : LatencyCost
    parts : int
        Chunks that take time.
    alone : int
        How many of them run alone; the times of the others are taken to be in proportion to their work.
    rate : _Rate
        What a network takes by what its layers take alone.
    """

    cost: LatencyCost
    parts: int
    alone: int
    rate: _Rate

    def corrected(self, factor: float) -> MeasuredLatency:
        """Return the same, in which pruning saves `factor` times as much as here."""
        return replace(self, cost=self.cost.corrected(factor))

    def rest(self, start: Analysis) -> LatencyCost:
        """Return the latency of a graph from which some groups are gone already, on the same scale.

        Kernels that only that graph has are measured: a layer, say, which takes in the activation behind the addition
        of a branch that is no more.

        Raises
        ------
        UnsupportedModelError
            If the runtime cannot run them.
        """
        layers = self.rate.layers
        plans = layers.plans(start)
        return _cost(start, plans, layers.times(plans), self.rate, (self.cost.before, self.cost.correction))


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be measured of one chunk: at all points of its grids, or at full width only."""

    chunk: Chunk
    full: Sample
    grids: tuple[Ints, Ints] | None
    samples: tuple[Sample, ...]


@dataclass(frozen=True, eq=False)
class _Layers:
    """Measures layers that run alone, unless they are in the cache.

    Attributes
    ----------
    block : int
        Channels in a block of the fast kernels.
    """

    stopwatch: Stopwatch
    cache: Cache
    block: int

    def plans(self, analysis: Analysis) -> list[_Plan]:
        """Return what is to be measured of a network."""
        return [_plan(analysis, chunk, self.block) for chunk in find_chunks(analysis)]

    def times(self, plans: list[_Plan]) -> dict[str, int]:
        """Measure what is not in the cache; return the times of all layers by their keys.

        Raises
        ------
        UnsupportedModelError
            If none of them runs alone.
        """
        known = self.cache.kernels
        wanted = {one.key: one for plan in plans for one in plan.samples if one.key not in known}
        for times in self.stopwatch.layers(list(wanted.values())) if wanted else ():
            known.update(times)
            self.cache.save()
        if not any(plan.full.key in known for plan in plans):
            runtime = self.stopwatch.environment.runtime
            raise UnsupportedModelError(
                f"{runtime} runs none of the model's layers alone, so that none can be measured"
            )
        return _assumed(plans, known) | known


@dataclass(frozen=True, eq=False)
class _Rate:
    """What a network takes by what its layers take alone, as a factor."""

    factor: float
    layers: _Layers


def latency_cost(analysis: Analysis, stopwatch: Stopwatch, cache: Cache, block: int) -> MeasuredLatency:
    """Measure what is not in the cache, and return the latency as a function of the widths.

    Parameters
    ----------
    analysis : Analysis
    stopwatch : Stopwatch
    cache : Cache
        Of its environment; what was measured is added to it.
    block : int
        Channels in a block of the fast kernels.

    Raises
    ------
    UnsupportedModelError
        If the runtime cannot run the model, or none of its layers alone.
    """
    layers = _Layers(stopwatch, cache, block)
    plans = layers.plans(analysis)
    whole = _whole(analysis, stopwatch, cache)
    times = layers.times(plans)
    alone = sum(plan.full.key in cache.kernels for plan in plans)
    rate = _Rate(whole / sum(times[plan.full.key] for plan in plans), layers)
    return MeasuredLatency(_cost(analysis, plans, times, rate), len(plans), alone, rate)


def _assumed(plans: list[_Plan], times: Mapping[str, int]) -> dict[str, int]:
    """Return what layers take at full width that do not run alone: as long for their work as all others together."""
    alone = [plan for plan in plans if plan.full.key in times]
    taken, work = sum(times[plan.full.key] for plan in alone), sum(_work(plan.chunk) for plan in alone)
    rest = (plan for plan in plans if plan.full.key not in times)
    return {plan.full.key: max(1, taken * _work(plan.chunk) // max(1, work)) for plan in rest}


def _work(chunk: Chunk) -> int:
    """Return the work of a chunk at full width: FLOPs, and what it reads in FLOPs that take as long."""
    full = tuple(length.full for length in chunk.features)
    read = sum(math.prod(axis.at(full) for axis in operand.axes) for operand in chunk.operands)
    return sum(term.of(length.full for length in term.lengths) for term in chunk.work) + PER_ELEMENT * read


def model_key(analysis: Analysis) -> str:
    """Return under which key the cache holds times of the whole model."""
    shapes = sorted((name, tuple(shape)) for name, shape in analysis.input_shapes.items())
    return hashlib.sha256(f"{analysis.model.sha256} {shapes}".encode()).hexdigest()[:32]


def _whole(analysis: Analysis, stopwatch: Stopwatch, cache: Cache) -> int:
    key = model_key(analysis)
    if key not in cache.models:
        model = analysis.model
        source = model.path or model.proto.SerializeToString()
        cache.models[key] = max(1, time_model(source, analysis.input_shapes, stopwatch))
    return cache.models[key]


def _plan(analysis: Analysis, chunk: Chunk, block: int) -> _Plan:
    full = sample(analysis, chunk, tuple(length.full for length in chunk.features))
    if not chunk.features or not chunk.measurable or full.weight > _LARGEST_SAMPLE:
        return _Plan(chunk, full, None, (full,))
    axes = [grid(length.full, block) for length in chunk.features]
    points = (tuple(int(length) for length in point) for point in product(*axes))
    samples = tuple(sample(analysis, chunk, point) for point in points)
    return _Plan(chunk, full, (axes[0], axes[1] if len(axes) > 1 else _NOTHING), samples)


def _cost(
    analysis: Analysis,
    plans: list[_Plan],
    times: Mapping[str, int],
    rate: _Rate,
    unpruned: tuple[int | None, float] = (None, 1.0),
) -> LatencyCost:
    """Put the cost together; `unpruned` is what all of the network takes, and the correction of what pruning saves."""
    block = rate.layers.block
    tabled: list[TabledChunk] = []
    scaled: list[ScaledChunk] = []
    fixed = 0
    for plan in plans:
        time = rate.factor * times[plan.full.key]
        if not plan.chunk.features:
            fixed += round(time)
        elif plan.grids is None or any(one.key not in times for one in plan.samples):
            scaled.append(ScaledChunk(time, plan.chunk.work))
        else:
            measured = np.array([times[one.key] for one in plan.samples], dtype=np.float64)
            shape = tuple(len(axis) for axis in plan.grids)
            values = np.round(rate.factor * monotone(measured.reshape(shape)))
            tabled.append(TabledChunk(*_axes(plan.chunk, block, plan.grids), values))
    before, correction = unpruned
    return LatencyCost(tabled, scaled, fixed, analysis.cost.sizes, correction, before)


def _axes(
    chunk: Chunk, block: int, grids: tuple[Ints, Ints]
) -> tuple[tuple[Length, Length], tuple[Ints, Ints], tuple[int, int]]:
    """Return lengths, grids and steps of both axes of a table."""
    lengths = list(chunk.features) + [Length.fixed(1)] * (2 - len(chunk.features))
    first, second = lengths
    return (first, second), grids, (step_of(first.full, block), step_of(second.full, block))
