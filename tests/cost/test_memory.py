# SPDX-License-Identifier: Apache-2.0
"""Peak memory equals a count by hand, on the original and on the pruned file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import shape_inference
from tiny_models import model

import graphprune
from graphprune import BudgetRequest, SolveOptions
from graphprune.cost.memory import PeakMemory
from graphprune.cost.metrics import model_cost
from graphprune.surgery.prune import prune

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune import Analysis

TEXT = """(float[1,3,8,8] x) => (float[1,4,8,8] y, float[1,24] flat) {
    a = Conv (x, stem)
    b = Relu (a)
    c = Conv (b, wide)
    d = Sigmoid (c)
    e = Conv (d, back)
    f = Add (e, b)
    i = Identity (f)
    y = Conv (i, head)
    p = GlobalAveragePool (d)
    q = Flatten (p)
    flat = MatMul (q, last)
}"""
WEIGHTS = {
    "stem": (8, 3, 1, 1),
    "wide": (24, 8, 1, 1),
    "back": (8, 24, 1, 1),
    "head": (4, 8, 1, 1),
    "last": (24, 24),
}
VIEWS = {"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout"}


def by_hand(proto: onnx.ModelProto) -> int:
    """Return the most bytes alive at once, going through the nodes one by one."""
    inferred = shape_inference.infer_shapes(proto).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    weights = {tensor.name for tensor in proto.graph.initializer}
    same = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type in VIEWS}

    def root(name: str) -> str:
        return root(same[name]) if name in same else name

    outputs = {root(value.name) for value in proto.graph.output}
    alive = {value.name for value in proto.graph.input}
    peak = 0
    for at, node in enumerate(proto.graph.node):
        alive |= {root(name) for name in node.output}
        peak = max(peak, sum(4 * int(np.prod(shapes[name])) for name in alive))
        later = {root(name) for after in proto.graph.node[at + 1 :] for name in after.input if name not in weights}
        alive &= later | outputs
    return peak


@pytest.fixture
def analysis(tmp_path: Path) -> Analysis:
    path = tmp_path / "net.onnx"
    path.write_bytes(model(TEXT, WEIGHTS).SerializeToString())
    return graphprune.analyze(graphprune.load(path))


def test_it_is_what_a_count_by_hand_gives(analysis: Analysis) -> None:
    assert PeakMemory(analysis)(analysis.cost.sizes) == by_hand(analysis.model.proto)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.55])
def test_what_is_predicted_is_counted_on_the_pruned_file(analysis: Analysis, share: float) -> None:
    plan = graphprune.solve(analysis, BudgetRequest("memory", share), SolveOptions(round_to=1))
    pruned = graphprune.apply(analysis, plan)
    again = graphprune.analyze(pruned)
    counted = model_cost(again, "memory").before
    assert counted == by_hand(pruned.proto) == plan.budget.after <= plan.budget.limit < plan.budget.before


def test_nothing_more_fits(analysis: Analysis) -> None:
    plan = graphprune.solve(analysis, BudgetRequest("memory", 0.6), SolveOptions(round_to=1))
    cost = model_cost(analysis, "memory").written
    widths = np.array([len(group.kept) for group in plan.groups])
    for group, size in enumerate(analysis.cost.sizes.tolist()):
        if widths[group] < size:
            assert cost(widths) + cost.change(widths, group, int(widths[group]) + 1) > plan.budget.limit


def test_moments_that_never_are_the_largest_do_not_change_it(analysis: Analysis) -> None:
    cost = PeakMemory(analysis)
    assert 0 < cost.moments < len(analysis.graph.nodes)
    random = np.random.default_rng(1)
    for _ in range(10):
        keep = [
            np.sort(random.permutation(group.size)[: random.integers(1, group.size + 1)]) for group in analysis.groups
        ]
        mask = np.zeros(int(analysis.cost.sizes.sum()), dtype=bool)
        for start, kept in zip(analysis.grouping.starts, keep, strict=False):
            mask[int(start) + kept] = True
        assert cost(np.array([len(kept) for kept in keep])) == by_hand(prune(analysis, mask))


def test_it_is_the_largest_of_the_sums_that_it_names(analysis: Analysis) -> None:
    cost = PeakMemory(analysis)
    random = np.random.default_rng(3)
    for _ in range(10):
        widths = random.integers(1, analysis.cost.sizes + 1)
        sums = [
            sum(float(factor.values(*(np.int64(length.at(widths)) for length in factor.lengths))) for factor in factors)
            for factors in cost.alternatives()
        ]
        assert max(sums) == cost(widths)
