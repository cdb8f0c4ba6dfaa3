# SPDX-License-Identifier: Apache-2.0
"""What a removal does to a running network is made good from samples before training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphprune.data.source import Source
from graphprune.recovery.recover import recover
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.rewrites.merge import inherit
from graphprune.training.bridge import to_onnx, to_torch
from graphprune.training.pruning.running_network import RunningNetwork, fits, renewed

__all__ = ["recovered"]


def recovered(
    before: RunningNetwork, after: RunningNetwork, data: Source, options: RecoverOptions
) -> tuple[RunningNetwork, Mapping[str, Any]]:
    """Recover a network that was just cut, towards what it gave before.

    Parameters
    ----------
    before, after : RunningNetwork
        The same network before and after a removal; `after` is cut.
    data : Source
        Samples it learns from; labels are not looked at.
    options : RecoverOptions

    Returns
    -------
    RunningNetwork, mapping
        `after` with other weights, or as it is where that does not help or where weights would have to be added
        that the whole model has no place for; and the record.
    """
    plan = after.plan
    if plan is None or not after.cut:
        raise ValueError("the network was not cut")
    analysis = renewed(before.analysis, to_onnx(before.net))
    names = {other: name for name, other in before.names.items()}
    left = {group.id: group.kept for group in plan.groups}
    kept = []
    for group in analysis.groups:
        name = names.get(group.id)
        there = np.ones(group.size, dtype=np.bool_) if name is None else np.isin(before.atoms[name], left[name])
        kept.append(np.flatnonzero(there))
    groups, _ = inherit(analysis, kept, "keep")
    samples = min(options.samples, len(data))
    recovery = recover(analysis, replace(plan, groups=groups), after.analysis.model, data, options)
    error = [round(recovery.before, 6), round(recovery.after, 6)]
    record = {"stage": "recovery", "method": recovery.method, "samples": samples, "error": error}
    if not recovery.improved:
        return after, record | {"kept": False}
    net = to_torch(recovery.model, unfold=bool(before.net.unfolded))
    if not fits(net, after.whole, plan):
        return after, record | {"kept": False}
    return replace(after, net=net, analysis=renewed(after.analysis, recovery.model)), record
