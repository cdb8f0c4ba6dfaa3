# SPDX-License-Identifier: Apache-2.0
"""Several processes prune as one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

SCRIPT = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from pruning_cases import KINDS, QUICK, labelled
import graphprune
from graphprune.solvers.training.cac import Cac
from graphprune.training.pruning.train import TrainOptions

solving = graphprune.SolveOptions(solver="global", round_to=1)
budget = graphprune.BudgetRequest("flops", 0.6)
model = graphprune.load(KINDS["folded"]())
found = graphprune.train(model, labelled(), budget, Cac(estimator="first-order"), TrainOptions(QUICK, solving))
if found.main:
    graphprune.save(found.model, sys.argv[2])
    graphprune.write_plan(found.plan, sys.argv[2] + ".json")
"""


def start(target: Path, **environment: str) -> subprocess.Popen[str]:
    tests = Path(__file__).parents[2] / "support"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", SCRIPT, str(tests), str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def ended(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err


def test_two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    single = start(tmp_path / "one.onnx")
    pair = [start(tmp_path / "two.onnx", RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]
    for process in (single, *pair):
        ended(process)
    one, two = (onnx.load(tmp_path / name).graph.initializer for name in ("one.onnx", "two.onnx"))
    for a, b in zip(one, two, strict=True):
        first, second = numpy_helper.to_array(a), numpy_helper.to_array(b)
        assert np.abs(first - second).max() < 1e-3 * max(1.0, np.abs(first).max()), a.name
