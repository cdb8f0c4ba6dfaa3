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
from graphprune.solvers import criteria, widths

analysis = graphprune.analyze(graphprune.load(sys.argv[1]))
evidence = SampleEvidence(analysis, graphprune.open_data(sys.argv[2], analysis.model), 5)
found = {}
for solver in widths.names():
    for criterion in ["l1"] if widths.needs_samples(solver) else criteria.names():
        options = SolveOptions(solver, criterion, round_to=1, seed=5)
        plan = make_plan(analysis, [BudgetRequest("flops", 0.5)], options, evidence=evidence)
        pruned = graphprune.apply(analysis, plan).proto.SerializeToString()
        found[f"{solver} {criterion}"] = [hashlib.sha256(part).hexdigest() for part in (dumps(plan).encode(), pruned)]
print(json.dumps(found))
"""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def digests(path: Path, hash_seed: str, threads: str, locale: str) -> dict[str, list[str]]:
    """Return the digests of plan and pruned model for each solver and criterion, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(path), str(path.with_suffix(".npz"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "LC_ALL": locale, **dict.fromkeys(THREADS, threads)},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[str]]]:
    path = tmp_path_factory.mktemp("determinism") / "net.onnx"
    onnx.save(model(TEXT, WEIGHTS), path)
    np.savez(path.with_suffix(".npz"), x=np.random.default_rng(0).standard_normal((48, 3, 12, 12)).astype(np.float32))
    return [digests(path, "0", "1", "C"), digests(path, "4242", "4", "C.UTF-8")]


PAIRS = [
    (solver, criterion)
    for solver in widths.names()
    for criterion in (("l1",) if widths.needs_samples(solver) else criteria.names())
]


@pytest.mark.parametrize(("solver", "criterion"), PAIRS)
def test_plans_and_files_are_byte_identical(runs: list[dict[str, list[str]]], solver: str, criterion: str) -> None:
    one, other = (run[f"{solver} {criterion}"] for run in runs)
    assert one == other


def test_the_digests_can_tell_plans_apart(runs: list[dict[str, list[str]]]) -> None:
    assert len({plan for run in runs for plan, _ in run.values()}) == len(runs[0])
