# SPDX-License-Identifier: Apache-2.0
"""Counting a plan: what a model costs before and after, in all and by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphprune.cost.metrics import COUNTED, model_cost
from graphprune.plan.check import Costs
from graphprune.plan.schema import LayerPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from graphprune.analysis.analysis import Analysis

__all__ = ["count_costs", "count_layers"]


def count_costs(
    analysis: Analysis,
    atoms: Sequence[int] | npt.NDArray[np.int64],
    metrics: Iterable[str] = ("flops", "params"),
    start: Analysis | None = None,
) -> Costs:
    """Return what the model costs before and after, in all and by layer, with so many atoms kept per group.

    Metrics that cannot be counted are left out.

    Parameters
    ----------
    start : Analysis, optional
        Of the reweighted original that the surgery starts from, where that is another model.
    """
    start = start or analysis
    widths = np.asarray(atoms, dtype=np.int64)
    totals = {}
    for metric in metrics:
        if metric in COUNTED:
            cost = model_cost(analysis, metric)
            # What the surgery starts from is written anew, even at full width, if it is not the original.
            after = cost.after(widths) if start is analysis else model_cost(start, metric).written(widths)
            totals[metric] = cost.before, after
    return Costs(totals, count_layers(analysis, start, widths))


def count_layers(analysis: Analysis, start: Analysis, chosen: npt.NDArray[np.int64]) -> tuple[LayerPlan, ...]:
    """Return width and cost of every layer before and after; a layer that `start` does not have is gone."""
    sizes = analysis.cost.sizes
    left = {(layer.node, layer.op): layer for layer in start.layers}
    plans = []
    for layer in analysis.layers:
        after = left.get((layer.node, layer.op))
        plans.append(
            LayerPlan(
                node=layer.node,
                op=layer.op,
                width=layer.width.full,
                pruned_width=after.width.at(chosen) if after else 0,
                flops_before=layer.flops(sizes),
                flops_after=after.flops(chosen) if after else 0,
                params_before=layer.params(sizes),
                params_after=after.params(chosen) if after else 0,
            )
        )
    return tuple(plans)
