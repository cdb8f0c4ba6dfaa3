# SPDX-License-Identifier: Apache-2.0
"""Bodies for tests of `If`, `Loop` and `Scan`: a hidden layer of 8 channels inside, and what must hold of any body."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import AttributeProto, GraphProto, ModelProto
from oracle_check import analyze, check
from rule_cases import Case, assert_groups

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load
from graphprune.surgery.prune import prune

__all__ = ["FLOPS", "HIDDEN", "MLP", "THREE", "WEIGHTS", "bodies", "body_tests", "loop"]

MLP = "a = MatMul ({0}, up) b = Add (a, bias) c = Relu (b) {1} = MatMul (c, down)"
"""A hidden layer of 8 channels between two values of width 4."""
WEIGHTS = {"up": (4, 8), "bias": (8,), "down": (8, 4)}
HIDDEN = {"a": (8, "up.1 out, bias.0 per_channel, down.0 in")}
FLOPS = 2 * 2 * (4 * 8 + 8 * 4)
"""Of one turn."""
THREE = {"three": np.int64(3)}


def loop(body: str, given: str = "three, , x", *, outputs: str = "y") -> str:
    """Return a graph with a loop that hands on a state `s`, which its body turns into `t`."""
    return f"""(float[2,4] x) => (float[2,4] {outputs}) {{
        y = Loop ({given}) <body = step (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t) {{
            on = Identity (go)
            {body}
        }}>
    }}"""


def bodies(proto: ModelProto) -> list[GraphProto]:
    """Return the bodies of all nodes of the graph."""
    return [a.g for node in proto.graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]


def body_tests(cases: list[Case]) -> tuple[Callable[..., None], ...]:
    """Return tests of layers inside bodies: what is free, the masked reference, the written file, nothing removed."""
    each = pytest.mark.parametrize("case", cases, ids=str)

    @each
    def are_free(case: Case) -> None:
        assert_groups(case)

    @each
    def equal_the_masked_ones(case: Case) -> None:
        assert check(case.model).effect > 1e-3

    @each
    def are_verified_and_faithful(case: Case, tmp_path: Path) -> None:
        analysis = Analysis(load(case.model))
        plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
        api.save(api.apply(analysis, plan), tmp_path / "pruned.onnx")
        assert api.verify(analysis, api.load(tmp_path / "pruned.onnx"), plan).status == "verified"

    @each
    def nothing_removed_is_nothing_changed(case: Case) -> None:
        analysis = analyze(case.model)
        assert prune(analysis, np.ones(int(analysis.grouping.sizes.sum()), dtype=np.bool_)) == case.model

    return are_free, equal_the_masked_ones, are_verified_and_faithful, nothing_removed_is_nothing_changed
