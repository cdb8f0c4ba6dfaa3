# SPDX-License-Identifier: Apache-2.0
"""Planning: what is refused before anything is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from recovery_models import samples
from tiny_models import model

import graphprune
from graphprune import BudgetRequest
from graphprune.api import SolveOptions
from graphprune.errors import UnsupportedModelError
from graphprune.evidence.sample_evidence import SampleEvidence
from graphprune.planning.make_plan import make_plan
from graphprune.solvers import criteria

TEXT = """(float[1,3,6,6] x) => (float[1,2,6,6] y) {
    h = Conv (x, first)
    y = Conv (h, last)
}"""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    proto = model(TEXT, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)})
    (first,) = (tensor for tensor in proto.graph.initializer if tensor.name == "first")
    weights = numpy_helper.to_array(first).copy()
    weights[3, 0] = value
    first.CopyFrom(numpy_helper.from_array(weights, "first"))
    loaded = graphprune.load(proto)
    with pytest.raises(UnsupportedModelError, match="'first'"):
        graphprune.solve(loaded, BudgetRequest("flops", 0.5))


RESIDUAL = """(float[1,3,8,8] x) => (float[1,5] y) {
    stem = Conv <pads=[1,1,1,1]> (x, stem_w)
    inner = Conv <pads=[1,1,1,1]> (stem, inner_w)
    act = Relu (inner)
    deep = Conv <group=12, pads=[1,1,1,1]> (act, deep_w)
    outer = Conv (deep, outer_w)
    sum = Add (stem, outer)
    wide = Conv <pads=[1,1,1,1]> (sum, wide_w)
    flat = GlobalAveragePool (wide)
    rows = Flatten (flat)
    y = Gemm (rows, head)
}"""
SHAPES = {
    "stem_w": (8, 3, 3, 3),
    "inner_w": (12, 8, 3, 3),
    "deep_w": (12, 1, 3, 3),
    "outer_w": (8, 12, 1, 1),
    "wide_w": (24, 8, 3, 3),
    "head": (24, 5),
}
DATA_FREE = ("bisection", "exemplar", "global", "greedy", "uniform")


@pytest.mark.parametrize("solver", DATA_FREE)
def test_every_criterion_meets_budgets_with_every_solver(solver: str) -> None:
    analysis = graphprune.analyze(graphprune.load(model(RESIDUAL, SHAPES)))
    budgets = (BudgetRequest("flops", 0.5), BudgetRequest("params", 0.6))
    evidence = SampleEvidence(analysis, samples(analysis.model.proto, 16))
    for criterion, round_to in product(criteria.names(), (1, "auto")):
        options = SolveOptions(solver=solver, criterion=criterion, round_to=round_to)
        plan = make_plan(analysis, budgets, options, evidence=evidence)
        assert all(0 < budget.after <= budget.limit for budget in plan.budgets)
        assert graphprune.reconcile(analysis, plan).plan == plan


def test_exemplars_are_atoms_of_the_plan() -> None:
    """Of each pair of equal filters one stays, although both of some pairs are more salient than those of others."""
    proto = model(TEXT, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)})
    weights = np.repeat(np.array([[9, 0, 0], [0, 8, 0], [0, 0, 7], [-6, -6, -6]], dtype=np.float32), 2, axis=0)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights.reshape(8, 3, 1, 1), "first"))
    options = SolveOptions(solver="exemplar", criterion="l1", round_to=1)
    plan = graphprune.solve(graphprune.load(proto), BudgetRequest("flops", 0.5), options)
    assert sorted(atom // 2 for atom in plan.groups[0].kept) == [0, 1, 2, 3]


SOLVE = """
import sys
from graphprune import BudgetRequest, SolveOptions, analyze, load, solve
from graphprune.plan.file import dumps
analysis = analyze(load("model.onnx"))
for solver, criterion in (("greedy", "lamp"), ("global", "domino-io"), ("exemplar", "fpgm")):
    assert "sklearn" not in sys.modules
    options = SolveOptions(solver=solver, criterion=criterion, round_to=1)
    print(dumps(solve(analysis, BudgetRequest("flops", 0.5), options)))
assert "torch" not in sys.modules
"""


def test_plans_do_not_depend_on_hash_seed_or_threads(tmp_path: Path) -> None:
    shapes = {**SHAPES, "inner_w": (300, 8, 3, 3), "deep_w": (300, 1, 3, 3), "outer_w": (8, 300, 1, 1)}
    onnx.save(model(RESIDUAL.replace("group=12", "group=300"), shapes), tmp_path / "model.onnx")
    found = set()
    for seed, threads in (("1", "1"), ("2", "2")):
        env = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-P", "-c", SOLVE]
        found.add(subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=120).stdout)
    assert len(found) == 1
    assert b"exemplars" in found.pop()
