# SPDX-License-Identifier: Apache-2.0
"""A small network with three coupled groups, one of them fed to two layers, to constrain in many ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tiny_models import model

import graphprune
from graphprune import AnalyzeOptions, BudgetRequest, Constraints, SolveOptions

if TYPE_CHECKING:
    from graphprune import Analysis, Plan

TEXT = """(float[1,3,8,8] x) => (float[] y) {
    a = Conv (x, stem_weight)
    b = Relu (a)
    c = Conv (b, one_weight, one_bias)
    d = Relu (c)
    e = Conv (d, two_weight)
    f = Add (e, b)
    g = Conv (f, three_weight)
    h = Conv <group = 8> (g, depth_weight)
    i = Flatten (h)
    y = Gemm (i, head_weight)
}"""
WEIGHTS = {
    "stem_weight": (16, 3, 1, 1),
    "one_weight": (24, 16, 1, 1),
    "one_bias": (24,),
    "two_weight": (16, 24, 1, 1),
    "three_weight": (32, 16, 1, 1),
    "depth_weight": (16, 4, 1, 1),
    "head_weight": (16 * 64, 5),
}
NAMES = ("stem", "stem/relu", "one", "one/relu", "two", "sum", "three", "depth", "flatten", "head")


def analysis() -> Analysis:
    """Return the network, analysed: groups `stem` (16), `one` (24), `three` (8 of 4 channels each)."""
    proto = model(TEXT, WEIGHTS)
    for node, name in zip(proto.graph.node, NAMES, strict=True):
        node.name = name
    return graphprune.analyze(graphprune.load(proto), AnalyzeOptions())


def plan(share: float, *, criterion: str = "l1", round_to: int = 1, **constraints: object) -> Plan:
    """Return the plan for a share of the FLOPs under constraints."""
    options = SolveOptions(criterion=criterion, round_to=round_to, constraints=Constraints(**constraints))  # type: ignore[arg-type]
    return graphprune.solve(analysis(), BudgetRequest("flops", share), options)


def widths(found: Plan) -> np.ndarray:
    """Return the widths of a plan in atoms."""
    return np.array([len(group.kept) for group in found.groups])
