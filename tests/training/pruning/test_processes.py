# SPDX-License-Identifier: Apache-2.0
"""Several processes prune as one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from child_processes import ended, start, two_ranks
from onnx import numpy_helper

SCRIPT = """
import sys
from pruning_cases import KINDS, QUICK, labelled
import graphprune
from graphprune.solvers.training.cac import Cac
from graphprune.training.pruning.train import TrainOptions

solving = graphprune.SolveOptions(solver="global", round_to=1)
budget = graphprune.BudgetRequest("flops", 0.6)
model = graphprune.load(KINDS["folded"]())
found = graphprune.train(model, labelled(), budget, Cac(estimator="first-order"), TrainOptions(QUICK, solving))
if found.main:
    graphprune.save(found.model, sys.argv[1])
    graphprune.write_plan(found.plan, sys.argv[1] + ".json")
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    single = start(SCRIPT, tmp_path / "one.onnx")
    pair = [start(SCRIPT, tmp_path / "two.onnx", **rank) for rank in two_ranks()]
    assert [ended(process) for process in (single, *pair)] == [0, 0, 0]
    one, two = (onnx.load(tmp_path / name).graph.initializer for name in ("one.onnx", "two.onnx"))
    for a, b in zip(one, two, strict=True):
        first, second = numpy_helper.to_array(a), numpy_helper.to_array(b)
        assert np.abs(first - second).max() < 1e-3 * max(1.0, np.abs(first).max()), a.name
