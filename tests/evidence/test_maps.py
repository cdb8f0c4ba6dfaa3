# SPDX-License-Identifier: Apache-2.0
"""Ranks of feature maps: as numpy has them, of the maps that readers see, and of none where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from recovery_models import block, samples
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.api import load, solve
from graphprune.data.capture import capture
from graphprune.evidence.maps import map_ranks, matrix_ranks
from graphprune.evidence.sample_evidence import SampleEvidence
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions, score_groups
from graphprune.solvers.criteria._seen import UNSEEN


def analysed(proto: ModelProto) -> Analysis:
    return Analysis(load(proto))


def test_ranks_of_matrices() -> None:
    rng = np.random.default_rng(0)
    maps = np.zeros((5, 6, 8), dtype=np.float32)
    maps[1] = np.outer(rng.random(6), rng.random(8))
    maps[2] = rng.standard_normal((6, 2)) @ rng.standard_normal((2, 8))
    maps[3] = rng.standard_normal((6, 8))
    maps[4] = 1e-20 * maps[3]
    assert matrix_ranks(maps).tolist() == [0, 1, 2, 6, 6]


def test_the_maps_that_readers_see_are_averaged() -> None:
    proto = block(norm=True)
    analysis, source = analysed(proto), samples(proto, 32)
    found = map_ranks(analysis, source)
    values = next(capture(analysis.model, ["b", "e", "h"], [source.read(np.arange(32)).feeds]))
    named = {group.name: ranks for group, ranks in zip(analysis.groups, found, strict=True)}
    expected = {name: np.linalg.matrix_rank(value).mean(axis=0) for name, value in values.items()}
    sizes = {ranks.size: ranks for ranks in named.values() if ranks is not None}
    np.testing.assert_allclose(sizes[16], expected["e"])
    np.testing.assert_allclose(sizes[12], expected["b"])  # h is read flattened, and so has no maps where it is read


def test_behind_a_flattening_it_is_what_the_activation_gives() -> None:
    text = """(float[n, 3, 6, 6] x) => (float[n, 4] y) {
        a = Conv (x, first)
        b = Relu (a)
        c = Flatten (b)
        y = Gemm (c, head)
    }"""
    proto = model(text, {"first": (5, 3, 3, 3), "head": (80, 4)})
    analysis, source = analysed(proto), samples(proto, 16)
    (found,) = map_ranks(analysis, source)
    value = next(capture(analysis.model, ["b"], [source.read(np.arange(16)).feeds]))["b"]
    np.testing.assert_allclose(found, np.linalg.matrix_rank(value).mean(axis=0))


def test_rows_and_maps_of_one_row_have_no_rank() -> None:
    text = """(float[n, 3, 1, 7] x) => (float[n, 4] y) {
        a = Conv (x, first)
        b = Relu (a)
        c = GlobalAveragePool (b)
        d = Flatten (c)
        e = Gemm (d, middle)
        f = Relu (e)
        y = Gemm (f, head)
    }"""
    proto = model(text, {"first": (5, 3, 1, 3), "middle": (5, 6), "head": (6, 4)})
    analysis, source = analysed(proto), samples(proto, 16)
    assert map_ranks(analysis, source) == (None, None)
    options = SolveOptions(criterion="hrank", round_to=1)
    scores = score_groups(analysis, options, SampleEvidence(analysis, source))
    norms = score_groups(analysis, SolveOptions(criterion="l2", round_to=1))
    assert all((own == other).all() for own, other in zip(scores.per_group, norms.per_group, strict=True))
    assert set(scores.source) == {"L2 norm of the filters (samples show no group)"}


def test_what_lies_in_a_branch_is_not_seen() -> None:
    text = """(float[n, 3, 6, 6] x) => (float[n, 2, d, e] y) {
        flag = ReduceMax <keepdims = 0> (x)
        big = Greater (flag, limit)
        m = If (big) <
            then_branch = one () => (float[n, 2, d, e] u) {
                p = Conv (x, inner)
                q = Relu (p)
                u = Conv (q, outer)
            },
            else_branch = two () => (float[n, 2, d, e] v) { v = Conv (x, other) }
        >
        h = Conv (m, first)
        i = Relu (h)
        y = Conv (i, last)
    }"""
    shapes = {"inner": (5, 3, 1, 1), "outer": (2, 5, 1, 1), "other": (2, 3, 1, 1)}
    shapes |= {"first": (6, 2, 1, 1), "last": (2, 6, 1, 1)}
    proto = model(text, shapes, limit=np.float32(0))
    analysis, source = analysed(proto), samples(proto, 16)
    seen = {group.size: ranks for group, ranks in zip(analysis.groups, map_ranks(analysis, source), strict=True)}
    assert seen[5] is None and seen[6] is not None
    for criterion in ("hrank", "reconstruct", "cpli"):
        options = SolveOptions(
            criterion=criterion, round_to=1, settings={"guided": False} if criterion == "cpli" else {}
        )
        scores = score_groups(analysis, options, SampleEvidence(analysis, source))
        of = {group.size: text for group, text in zip(analysis.groups, scores.source, strict=True)}
        assert of[5] == UNSEEN != of[6], criterion
        plan = solve(analysis, BudgetRequest("flops", 0.5), options, data=source)
        assert plan.budget.after <= plan.budget.limit


@pytest.mark.parametrize("count", [1, 40])
def test_any_number_of_samples_will_do(count: int) -> None:
    proto = block(norm=False)
    assert all(ranks is not None for ranks in map_ranks(analysed(proto), samples(proto, count)))
