# SPDX-License-Identifier: Apache-2.0
"""Equal input, options and seed give equal bytes, whatever PYTHONHASHSEED, the locale and the number of threads.

Every registered solver and criterion takes part by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from tiny_models import model

from graphprune.solvers import criteria, widths

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """(float[1,3,12,12] x) => (float[] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, stem)
    b = BatchNormalization (a, scale0, bias0, mean0, var0)
    c = Relu (b)
    d = Conv <pads = [1, 1, 1, 1]> (c, first)
    e = BatchNormalization (d, scale1, bias1, mean1, var1)
    f = Relu (e)
    g = Conv <pads = [1, 1, 1, 1]> (f, second)
    h = Add (g, c)
    i = Conv <group = 24, pads = [1, 1, 1, 1]> (f, depth)
    j = Concat <axis = 1> (h, i)
    k = GlobalAveragePool (j)
    l = Flatten (k)
    y = Gemm (l, head)
}"""
WEIGHTS = {
    "stem": (16, 3, 3, 3),
    "first": (24, 16, 3, 3),
    "second": (16, 24, 3, 3),
    "depth": (24, 1, 3, 3),
    "head": (40, 5),
    **{f"{name}0": (16,) for name in ("scale", "bias", "mean", "var")},
    **{f"{name}1": (24,) for name in ("scale", "bias", "mean", "var")},
}

CHILD = """
import hashlib, json, sys
import graphprune
from graphprune import BudgetRequest, SolveOptions
from graphprune.evidence.sample_evidence import SampleEvidence
from graphprune.plan.file import dumps
from graphprune.planning.make_plan import make_plan

analysis = graphprune.analyze(graphprune.load(sys.argv[1]))
evidence = SampleEvidence(analysis, graphprune.open_data(sys.argv[2], analysis.model), 5)
digests = []
for solver, criterion in json.loads(sys.argv[3]):
    options = SolveOptions(solver, criterion, round_to=1, seed=5)
    plan = make_plan(analysis, [BudgetRequest("flops", 0.5)], options, evidence=evidence)
    pruned = graphprune.apply(analysis, plan).proto.SerializeToString()
    digests.append([hashlib.sha256(part).hexdigest() for part in (dumps(plan).encode(), pruned)])
print(json.dumps(digests))
"""

PAIRS = [
    *((solver, "l1") for solver in widths.names()),
    *(("bisection", criterion) for criterion in criteria.names() if criterion != "l1"),
]
"""Every solver and every criterion: what one does with the other's numbers is the same for all of them."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Run:
    """A process of its own that makes plan and pruned model for each of PAIRS."""

    def __init__(self, path: Path, hash_seed: str, threads: str, locale: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, str(path), str(path.with_suffix(".npz")), json.dumps(PAIRS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "LC_ALL": locale, **dict.fromkeys(THREADS, threads)},
        )

    def digests(self) -> list[list[str]]:
        """Wait for the end, and return the digests of plan and pruned model for each of PAIRS."""
        out, err = self._process.communicate()
        assert self._process.returncode == 0, err
        lines: list[list[str]] = json.loads(out)
        return lines


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[list[list[str]]]:
    path = tmp_path_factory.mktemp("determinism") / "net.onnx"
    onnx.save(model(TEXT, WEIGHTS), path)
    np.savez(path.with_suffix(".npz"), x=np.random.default_rng(0).standard_normal((48, 3, 12, 12)).astype(np.float32))
    both = Run(path, "0", "1", "C"), Run(path, "4242", "4", "C.UTF-8")
    return [run.digests() for run in both]


@pytest.mark.parametrize("at", range(len(PAIRS)), ids=["-".join(pair) for pair in PAIRS])
def test_plans_and_files_are_byte_identical(runs: list[list[list[str]]], at: int) -> None:
    one, other = (run[at] for run in runs)
    assert one == other


def test_the_digests_can_tell_plans_apart(runs: list[list[list[str]]]) -> None:
    assert len({plan for run in runs for plan, _ in run}) == len(PAIRS)
