# SPDX-License-Identifier: Apache-2.0
"""Grams: covariances of what consumers of the dense network read, all in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphprune.calibrate.moments import Moments
from graphprune.calibrate.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from graphprune.calibrate.moments import Summary
    from graphprune.recovery.consumers import Consumer
    from graphprune.recovery.draft import Draft
    from graphprune.recovery.options import Progress

__all__ = ["consumer_moments"]

Array = npt.NDArray[Any]


def consumer_moments(
    draft: Draft,
    consumers: Sequence[Consumer],
    feeds: Callable[[int], Mapping[str, Array]],
    count: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Summary]:
    """Return the moments of what each consumer reads and gives, by the consumer's first output.

    Parameters
    ----------
    feeds : callable
        Returns the graph inputs of batch number i.
    count : int
        Number of batches.
    progress : callable, optional
        Told how many consumers are done.
    """
    random = np.random.default_rng(seed)
    unique = {consumer.node.index: consumer for consumer in consumers}
    ordered = [unique[index] for index in sorted(unique)]
    stops = [(consumer.node.inputs[0], consumer.node.outputs[0]) for consumer in ordered]
    found = {}
    with Walk(draft.model, draft.graph, stops, feeds, count) as walk:
        for number, (consumer, (x, y)) in enumerate(zip(ordered, stops, strict=True)):
            if progress is not None:
                progress(number, len(ordered))
            moments = Moments()
            view = consumer.kernel.view
            for values in walk.step():
                grid = view.grid(values[y], random)
                moments.add(view.inputs(values[x], grid), view.outputs(values[y], grid))
            found[y] = moments.summary()
    return found
