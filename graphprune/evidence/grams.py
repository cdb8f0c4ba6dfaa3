# SPDX-License-Identifier: Apache-2.0
"""Grams: covariances of what consumers of the dense network read, all in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array
from graphprune.data.moments import Moments
from graphprune.data.walk import Walk
from graphprune.data.windows import POSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from graphprune.data.moments import MomentSummary
    from graphprune.evidence.consumers import Consumer
    from graphprune.recovery.editable_model import EditableModel
    from graphprune.recovery.recover_options import Progress

__all__ = ["consumer_moments"]


def consumer_moments(
    editable: EditableModel,
    consumers: Sequence[Consumer],
    feeds: Callable[[int], Mapping[str, Array]],
    count: int,
    seed: int = 0,
    progress: Progress | None = None,
    positions: int = POSITIONS,
) -> dict[str, MomentSummary]:
    """Return the moments of what each consumer reads and gives, by the consumer's first output.

    Parameters
    ----------
    feeds : callable
        Returns the graph inputs of batch number i.
    count : int
        Number of batches.
    progress : callable, optional
        Told how many consumers are done.
    positions : int
        The most output positions per sample.
    """
    random = np.random.default_rng(seed)
    unique = {consumer.node.index: consumer for consumer in consumers}
    ordered = [unique[index] for index in sorted(unique)]
    stops = [(consumer.node.inputs[0], consumer.node.outputs[0]) for consumer in ordered]
    by_output = {}
    with Walk(editable.model, editable.graph, stops, feeds, count) as walk:
        for number, (consumer, (x, y)) in enumerate(zip(ordered, stops, strict=True)):
            if progress is not None:
                progress(number, len(ordered))
            moments = Moments()
            view = consumer.kernel.view
            for values in walk.step():
                grid = view.grid(values[y], random, positions)
                moments.add(view.inputs(values[x], grid), view.outputs(values[y], grid))
            by_output[y] = moments.summary()
    return by_output
