# SPDX-License-Identifier: Apache-2.0
"""Sensitivity: what the outputs of the dense network lose when one group alone is made narrower.

For every group and width the consumers of the group are refitted to what is left of it, and the rest of the network is
run with them: the error is measured where it counts, at the outputs. Which atoms stay at a width is found by backward
elimination. Nothing is trained and no labels are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Floats, Ints
from graphprune.data.feeding import model_batches
from graphprune.data.windows import POSITIONS
from graphprune.evidence.consumers import Consumer, find_consumers
from graphprune.evidence.downstream import DownstreamErrors, Readings
from graphprune.evidence.elimination import Elimination, backward_elimination
from graphprune.evidence.grams import consumer_moments
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.sites import find_affine, norm_map
from graphprune.reproducible import one_blas_thread
from graphprune.solvers.protocols.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.data.moments import MomentSummary
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.recovery.recover_options import Progress

__all__ = [
    "SensitivityOptions",
    "Table",
    "measure_sensitivity",
    "read_consumers",
    "readings_of",
]

_FEWEST_POSITIONS = 16  # per sample


@dataclass(frozen=True)
class SensitivityOptions:
    """How sensitivities are measured.

    Parameters
    ----------
    samples : int
        The most samples used.
    held_out : float
        Share of them on which errors are measured; the moments of the others are what refits use.
    ridge : float
        As for recovery.
    steps : int
        Widths tried per group, besides the full one, evenly spaced.
    seed : int
        For the sampled positions.
    rows : int
        Of few samples as many as 64 positions each are looked at, of many so few that there are about so many rows.
    """

    samples: int = 1024
    held_out: float = 0.25
    ridge: float = 1e-3
    steps: int = 8
    seed: int = 0
    rows: int = 1 << 30

    def positions(self, samples: int) -> int:
        """Return how many output positions per sample are looked at, of so many samples."""
        return max(_FEWEST_POSITIONS, min(POSITIONS, self.rows // samples))

    def divided(self, source: Source) -> tuple[Source, Source]:
        """Return the samples that refits use, and those on which errors are measured."""
        used = source.limited(self.samples)
        return used.split(max(1, round(self.held_out * len(used))))


@dataclass(frozen=True, eq=False)
class Table:
    """What one group can give up.

    Attributes
    ----------
    group : str
        Its id.
    elimination : Elimination or None
        In which order its atoms go; None where something other than weights reads the group, and nothing is known.
    widths : ndarray of int64, increasing
        Widths that were measured; the last one is the full width.
    errors : ndarray, shape (len(widths),)
        Squared error of the outputs, relative to their variance, non-increasing; 0 at the full width.
    """

    group: str
    elimination: Elimination | None
    widths: Ints
    errors: Floats


@one_blas_thread()
def measure_sensitivity(
    analysis: Analysis,
    source: Source,
    options: SensitivityOptions | None = None,
    levels: Sequence[Ints] | None = None,
    progress: Progress | None = None,
    *,
    teacher: Model | None = None,
    read: Readings | None = None,
) -> tuple[Table, ...]:
    """Measure every group of a network.

    Parameters
    ----------
    analysis : Analysis
        Of the dense network.
    source : Source
        Samples; labels are not looked at.
    levels : sequence of ndarray, optional
        Widths to measure, per group; evenly spaced ones by default.
    progress : callable, optional
        Told how many groups are done.
    teacher : Model, optional
        Whose outputs errors are measured against; by default those of the network itself. The error that a network
        has from the start is taken off.
    read : Readings, optional
        What :func:`read_consumers` gave with the same options, if it is there already.

    Returns
    -------
    tuple of Table
        In the order of ``analysis.groups``.
    """
    options = options or SensitivityOptions()
    read = read or read_consumers(analysis, source, options)
    wanted = [
        _levels(group.size, options.steps) if levels is None else levels[at] for at, group in enumerate(analysis.groups)
    ]
    errors = DownstreamErrors(read, options.ridge, options.divided(source)[1], teacher).measure(wanted, progress)
    tables = []
    for at, group in enumerate(analysis.groups):
        widths = np.unique(np.append(wanted[at], group.size)) if at in errors else np.array([group.size])
        values = np.array([errors[at].get(int(width), 0.0) for width in widths]) if at in errors else np.zeros(1)
        monotone = np.maximum.accumulate(np.maximum(values, 0.0)[::-1])[::-1]
        tables.append(Table(group.id, read.orders[at], widths.astype(np.int64), monotone))
    return tuple(tables)


@one_blas_thread()
def read_consumers(
    analysis: Analysis, source: Source, options: SensitivityOptions | None = None, progress: Progress | None = None
) -> Readings:
    """Collect what the consumers of every group read, and in which order their atoms can go.

    Parameters
    ----------
    analysis : Analysis
        Of the dense network.
    source : Source
        Samples; labels are not looked at.
    progress : callable, optional
        Told how many layers are done.
    """
    options = options or SensitivityOptions()
    editable = EditableModel(analysis.model)
    by_group = find_consumers(editable, analysis)
    used, _ = options.divided(source)
    batches = model_batches(analysis.model, used)
    moments = consumer_moments(
        editable,
        [consumer for consumers in by_group if consumers for consumer in consumers],
        lambda number: used.read(batches[number]).feeds,
        len(batches),
        options.seed,
        progress,
        options.positions(len(used)),
    )
    orders = tuple(None if each is None else _eliminate(editable, each, moments, options.ridge) for each in by_group)
    return Readings(editable, by_group, moments, orders)


def _levels(size: int, steps: int) -> Ints:
    """Return evenly spaced widths from 1 upwards, without the full one."""
    return np.unique(np.maximum(1, np.round(np.arange(1, steps) * size / steps))).astype(np.int64)


def _eliminate(
    editable: EditableModel, consumers: Sequence[Consumer], moments: Mapping[str, MomentSummary], ridge: float
) -> Elimination:
    return backward_elimination(readings_of(editable, consumers, moments), ridge)


def readings_of(
    editable: EditableModel, consumers: Sequence[Consumer], moments: Mapping[str, MomentSummary]
) -> list[Reading]:
    """Return what the consumers of one group see of it; errors count behind a following `BatchNormalization`."""
    return [
        Reading(
            moments[consumer.node.outputs[0]].xx[0],
            consumer.kernel.matrix(editable.read(consumer.kernel.tensor))[0] * _output_scale(editable, consumer),
            consumer.columns,
            consumer.kernel.tensor,
        )
        for consumer in consumers
    ]


def _output_scale(editable: EditableModel, consumer: Consumer) -> Floats:
    """Return what a following `BatchNormalization` multiplies each output with: errors count behind it."""
    affine = find_affine(editable, consumer.node)
    if affine is None or affine.norm is None:
        return np.ones(consumer.kernel.outputs)
    return norm_map(editable, affine.norm)[0]
