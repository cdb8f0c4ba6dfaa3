# SPDX-License-Identifier: Apache-2.0
"""Plans by hand, and models with equal channels, for tests of inheritance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.cost.counting import count_costs
from graphprune.model.load import load
from graphprune.plan.check import group_plan
from graphprune.plan.schema import Merge, Plan
from graphprune.rewrites.paths import atom_positions, find_paths
from graphprune.rewrites.readers import Sites

__all__ = ["changed", "plan_of", "twins"]


def plan_of(analysis: Analysis, kept: Sequence[Sequence[int]], merges: Sequence[Sequence[Merge]]) -> Plan:
    """Return a plan that keeps these atoms of each group and merges others."""
    whole = api.solve(analysis, api.BudgetRequest("flops", 1))
    groups = tuple(
        replace(group_plan(group, list(atoms)), merged=tuple(merged))
        for group, atoms, merged in zip(analysis.groups, kept, merges, strict=True)
    )
    costs = count_costs(analysis, [len(atoms) for atoms in kept])
    return replace(whole, groups=groups, layers=costs.layers, budget=costs.on(whole.budget))


def twins(proto: ModelProto, number: int, atoms: Sequence[int]) -> ModelProto:
    """Return a copy of a model in which some atoms of a group are equal in all that merging does not add up.

    The model itself where such a weight is not stored as it is.
    """
    analysis = Analysis(load(proto))
    group, path = analysis.groups[number], find_paths(analysis, Sites(analysis))[number]
    result = ModelProto()
    result.CopyFrom(proto)
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    for member in path.compared(group):
        places = atom_positions(member, group.size)
        if member.initializer not in stored or places is None:
            return proto
        array = numpy_helper.to_array(stored[member.initializer]).copy()
        rows = np.moveaxis(array, member.axis, 0)
        for atom in atoms[1:]:
            rows[places[atom]] = rows[places[atoms[0]]]
        stored[member.initializer].CopyFrom(numpy_helper.from_array(array, member.initializer))
    return result


def changed(proto: ModelProto, *changes: tuple[str, Any, Any]) -> ModelProto:
    """Return a copy of a model with other values in some places of its initializers: ``("w", 3, 0.0)``."""
    result = ModelProto()
    result.CopyFrom(proto)
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    for name, index, value in changes:
        array = numpy_helper.to_array(stored[name]).copy()
        array[index] = value
        stored[name].CopyFrom(numpy_helper.from_array(array, name))
    return result
