# SPDX-License-Identifier: Apache-2.0
"""Consumers: the moments of what reads every group, in one pass over the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphprune.data.feeding import model_batches
from graphprune.evidence.consumers import find_consumers
from graphprune.evidence.grams import consumer_moments
from graphprune.evidence.sensitivity import readings_of
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.sites import find_affine
from graphprune.reproducible import one_blas_thread

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.data.source import Source
    from graphprune.solvers.protocols.reading import Reading

__all__ = ["consumer_outputs", "consumer_readings"]


@one_blas_thread()
def consumer_readings(analysis: Analysis, source: Source, seed: int) -> tuple[tuple[Reading, ...] | None, ...]:
    """Return what every consumer of a group sees of it; None where something else than weights reads the group.

    Parameters
    ----------
    analysis : Analysis
    source : Source
        Labels are not looked at.
    seed : int
        For the sampled positions.
    """
    editable = EditableModel(analysis.model)
    by_group = find_consumers(editable, analysis)
    everyone = [consumer for consumers in by_group for consumer in consumers or ()]
    batches = model_batches(analysis.model, source)
    moments = consumer_moments(
        editable, everyone, lambda number: source.read(batches[number]).feeds, len(batches), seed
    )
    return tuple(
        None if consumers is None else tuple(readings_of(editable, consumers, moments)) for consumers in by_group
    )


def consumer_outputs(analysis: Analysis) -> tuple[tuple[tuple[str, int], ...] | None, ...]:
    """Return where the errors of each consumer count: the name of a value, and its channel axis.

    That is the consumer's output, or what a `BatchNormalization` makes of it. In the order of `consumer_readings`.
    """
    editable = EditableModel(analysis.model)
    result: list[tuple[tuple[str, int], ...] | None] = []
    for consumers in find_consumers(editable, analysis):
        if consumers is None:
            result.append(None)
            continue
        places = []
        for consumer in consumers:
            affine = find_affine(editable, consumer.node)
            behind = affine is not None and affine.norm is not None
            value = affine.value if affine is not None and behind else consumer.node.outputs[0]
            places.append((value, 1 if consumer.node.op_type == "Conv" else -1))
        result.append(tuple(places))
    return tuple(result)
