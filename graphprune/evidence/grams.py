# SPDX-License-Identifier: Apache-2.0
"""Grams: covariances of what consumers of the dense network read, all in one pass.

Few samples do not say how a layer with many columns makes up for those that go. So the pull that recovery would choose
for it (:mod:`graphprune.recovery.ridge`) is a part of its moments: with ``G + lambda I`` for G and ``C + lambda W`` for
C, every refit and every elimination is pulled towards the present weights W, whatever its own ridge.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from graphprune.array_types import Array, Floats, Ints
from graphprune.data.walk import Walk
from graphprune.data.windows import POSITIONS
from graphprune.recovery.ridge import SplitMoments, best_ridge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from graphprune.data.moments import MomentSummary
    from graphprune.evidence.consumers import Consumer
    from graphprune.recovery.editable_model import EditableModel
    from graphprune.recovery.recover_options import Progress

    Bools = npt.NDArray[np.bool_]

__all__ = ["consumer_moments"]

_REMOVED = 4
"""One atom in so many is removed where a pull is looked for."""


def consumer_moments(
    editable: EditableModel,
    consumers: Sequence[Consumer],
    feeds: Callable[[int], Mapping[str, Array]],
    halves: Sequence[Bools],
    seed: int = 0,
    progress: Progress | None = None,
    positions: int = POSITIONS,
    ridge: float | None = None,
) -> dict[str, MomentSummary]:
    """Return the moments of what each consumer reads and gives, by the consumer's first output.

    Parameters
    ----------
    feeds : callable
        Returns the graph inputs of batch number i.
    halves : sequence of ndarray of bool
        For every batch, which of its samples are in the second of two halves.
    progress : callable, optional
        Told how many consumers are done.
    positions : int
        The most output positions per sample.
    ridge : float, optional
        The weakest pull of the refits that the moments are for; what the halves say beyond it is added. Nothing is by
        default.
    """
    random = np.random.default_rng(seed)
    unique = {consumer.node.index: consumer for consumer in consumers}
    ordered = [unique[index] for index in sorted(unique)]
    stops = [(consumer.node.inputs[0], consumer.node.outputs[0]) for consumer in ordered]
    by_output = {}
    with Walk(editable.model, editable.graph, stops, feeds, len(halves)) as walk:
        for number, (consumer, (x, y)) in enumerate(zip(ordered, stops, strict=True)):
            if progress is not None:
                progress(number, len(ordered))
            moments = SplitMoments(halves)
            view = consumer.kernel.view
            for values in walk.step():
                grid = view.grid(values[y], random, positions)
                moments.add(view.inputs(values[x], grid), view.outputs(values[y], grid))
            if ridge is None:
                by_output[y] = moments.whole
            else:
                weight = consumer.kernel.matrix(editable.read(consumer.kernel.tensor))
                by_output[y] = _pulled(moments, weight, consumer.columns, ridge)
    return by_output


def _pulled(moments: SplitMoments, weight: Floats, columns: Ints, least: float) -> MomentSummary:
    """Return moments with the pull in them that suits a refit without every fourth atom."""
    live = np.ones(weight.shape[1], dtype=np.bool_)
    live[columns[::_REMOVED]] = False
    whole = moments.whole
    if not live.any():
        return whole
    ridge = best_ridge(tuple(part.of(live) for part in moments.parts), weight[:, live], least)
    if ridge <= least:
        return whole
    variance = np.diagonal(whole.xx, axis1=1, axis2=2)[:, live].mean(axis=1)
    pull = ((ridge - least) * variance)[:, None, None]
    return replace(whole, xx=whole.xx + pull * np.eye(weight.shape[1]), xy=whole.xy + pull * weight)
