# SPDX-License-Identifier: Apache-2.0
"""What samples say does not depend on the number of BLAS threads, and not on the processor's kernels but by rounding.

Plans are equal in bytes. Recovered weights are equal in bytes whatever the number of threads, and up to rounding with
other kernels of OpenBLAS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import model

TEXT = """(float[n,3,12,12] x) => (float[n,5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, stem)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, first)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1]> (d, second)
    f = Add (e, b)
    g = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (f)
    h = Conv <pads = [1, 1, 1, 1]> (g, third)
    i = Relu (h)
    k = GlobalAveragePool (i)
    l = Flatten (k)
    y = Gemm (l, head)
}"""
WEIGHTS = {
    "stem": (16, 3, 3, 3),
    "first": (40, 16, 3, 3),
    "second": (16, 40, 3, 3),
    "third": (48, 16, 3, 3),
    "head": (48, 5),
}

CHILD = """
import json, sys
from pathlib import Path
import graphprune
from graphprune import BudgetRequest, SolveOptions
from graphprune.evidence.sample_evidence import SampleEvidence
from graphprune.plan.file import dumps
from graphprune.planning.make_plan import make_plan
from graphprune.recovery.recover_options import METHODS

path, out = Path(sys.argv[1]), Path(sys.argv[2])
analysis = graphprune.analyze(graphprune.load(path))
source = graphprune.open_data(str(path.with_suffix(".npz")), analysis.model)
evidence = SampleEvidence(analysis, source, 5)
for solver, criterion in json.loads(sys.argv[3]):
    options = SolveOptions(solver, criterion, adapt=("l1", "l2"), round_to=1, seed=5)
    plan = make_plan(analysis, [BudgetRequest("flops", 0.5)], options, evidence=evidence)
    (out / f"{solver}-{criterion}.json").write_text(dumps(plan), encoding="utf-8")
pruned = graphprune.apply(analysis, plan)
for method in METHODS:
    if method == "blocks":  # in torch, where last digits depend on the machine, as those of finetune do
        continue
    found = graphprune.recover(analysis, pruned, plan, source, graphprune.RecoverOptions(method))
    (out / f"{method}.onnx").write_bytes(found.model.proto.SerializeToString(deterministic=True))
    (out / f"{method}.json").write_text(json.dumps([found.before, found.after, found.misfit, found.agreement]))
"""

Files = dict[str, bytes]

METHODS = [
    *(("cap", "l1"), ("sensitivity", "l1"), ("stage-wise", "l1")),
    *(("bisection", "reconstruct"), ("bisection", "hrank"), ("global", "cpli")),
]
NEEDED = {"Haswell": "avx2", "SkylakeX": "avx512f", "Zen": "avx2"}
"""Kernels of OpenBLAS, and what a processor needs to run them; the wheels of numpy have those of Haswell for Zen."""


def run(path: Path, out: Path, threads: str, kernels: str = "") -> Files:
    """Return the files that a process of its own writes, by name."""
    out.mkdir()
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    env |= dict.fromkeys(names, threads) | ({"OPENBLAS_CORETYPE": kernels} if kernels else {})
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(path), str(out), json.dumps(METHODS)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kernels") / "net.onnx"
    onnx.save(model(TEXT, WEIGHTS), path)
    samples = np.random.default_rng(0).standard_normal((96, 3, 12, 12)).astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=samples)
    return path


@pytest.fixture(scope="module")
def one_thread(network: Path) -> Files:
    return run(network, network.parent / "one", "1")


@pytest.mark.parametrize("threads", ["2", "4"])
def test_the_number_of_threads_changes_no_byte(network: Path, one_thread: Files, tmp_path: Path, threads: str) -> None:
    assert run(network, tmp_path / "out", threads) == one_thread


@pytest.mark.parametrize(("threads", "kernels"), [("1", "Haswell"), ("2", "SkylakeX"), ("4", "Zen")])
def test_other_kernels_change_weights_by_rounding_and_no_plan(
    network: Path, one_thread: Files, tmp_path: Path, threads: str, kernels: str
) -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists() or NEEDED[kernels] not in flags.read_text(encoding="utf-8").split():
        pytest.skip(f"this processor cannot run the kernels of {kernels}, or does not say whether it can")
    other = run(network, tmp_path / "out", threads, kernels)
    assert other.keys() == one_thread.keys()
    for name, content in other.items():
        if name.endswith(".json"):
            assert content == one_thread[name], name
        else:
            weights_are_close(content, one_thread[name])


def weights_are_close(one: bytes, two: bytes) -> None:
    first, second = (onnx.load_from_string(content).graph.initializer for content in (one, two))
    assert [tensor.name for tensor in first] == [tensor.name for tensor in second]
    for tensor, twin in zip(first, second, strict=True):
        value = numpy_helper.to_array(twin)
        scale = float(np.abs(value).max(initial=0.0))
        np.testing.assert_allclose(numpy_helper.to_array(tensor), value, rtol=0, atol=1e-3 * scale)
