# SPDX-License-Identifier: Apache-2.0
"""How long pruning takes, next to reading and writing the same file.

::

    python tools/bench_solve.py ~/zoo/resnet50.legacy.onnx ~/zoo/densenet201.legacy.onnx

For each file two jobs run in turn, each time in a fresh process: *copy* is ``onnx.load`` and ``onnx.save``, *prune* is
loading, analysing, solving, surgery, the fidelity check and saving, without verification. What is compared is the time
from after the imports to the end, as the median of the ratios of the pairs; CPU seconds are those of the whole process,
its start included. Then verification is timed against plain runs of the original in the same process, for each file and
for a detector on images of 800x608 that is made here. Last comes ``graphprune --help``. Exit status 1 if a limit is
exceeded, or if torch was imported.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BUDGET = 0.5
LARGEST_RATIO = {"resnet50": 3.0}
MOST_CPU = {"densenet201": 3.0}
LONGEST_HELP = 0.5
MOST_PLAIN_RUNS, MOST_BESIDES = 6.0, 2.0
"""What verification may take: so many plain runs of the original, and so many seconds."""


@dataclass(frozen=True)
class Run:
    """One job in one process: seconds after the imports, CPU seconds of the process, whether torch was imported."""

    seconds: float
    cpu: float
    torch: bool


def copy(source: Path, target: Path) -> float:
    """Read and write a file with onnx; return the seconds."""
    import onnx

    started = time.perf_counter()
    onnx.save(onnx.load(source), target)
    return time.perf_counter() - started


def prune(source: Path, target: Path) -> float:
    """Prune a file; return the seconds."""
    from graphprune import api

    started = time.perf_counter()
    analysis = api.analyze(api.load(source))
    api.save(api.apply(analysis, api.solve(analysis, api.BudgetRequest("flops", BUDGET))), target)
    return time.perf_counter() - started


def verify(source: Path, target: Path) -> float:
    """Time verification against plain runs; print both, and return the seconds as a share of what is allowed."""
    import numpy as np
    import onnxruntime as ort

    from graphprune import api
    from graphprune.verification.sizes import input_specs

    analysis = api.analyze(api.load(source))
    plan = api.solve(analysis, api.BudgetRequest("flops", BUDGET))
    pruned = api.apply(analysis, plan)
    session = ort.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    inputs = input_specs(analysis.graph, analysis.input_shapes)
    feeds = {name: random.standard_normal(info.shape).astype(info.dtype) for name, info in inputs.items()}
    session.run(None, feeds)
    plain, taken = [], []
    for _ in range(3):
        for seconds, run in (
            (plain, lambda: session.run(None, feeds)),
            (taken, lambda: api.verify(analysis, pruned, plan)),
        ):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
    run_seconds, check_seconds = statistics.median(plain), statistics.median(taken)
    allowed = MOST_PLAIN_RUNS * run_seconds + MOST_BESIDES
    target.write_text(f"{check_seconds:6.3f} s, a plain run {run_seconds:6.3f} s, allowed {allowed:6.3f} s", "utf-8")
    return check_seconds / allowed


def detector(path: Path) -> Path:
    """Write a network as large as a layout detector: strided stages of residual blocks, maps at three scales."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    random = np.random.default_rng(0)
    nodes, weights = [], []

    def conv(name: str, source: str, channels: tuple[int, int], kernel: int, stride: int = 1) -> str:
        shape = (channels[1], channels[0], kernel, kernel)
        scale = np.sqrt(2 / (channels[0] * kernel**2))
        weights.append(numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), f"{name}.w"))
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [source, f"{name}.w"], [f"{name}.c"], pads=pads, strides=[stride] * 2))
        nodes.append(helper.make_node("Sigmoid", [f"{name}.c"], [f"{name}.s"]))
        nodes.append(helper.make_node("Mul", [f"{name}.c", f"{name}.s"], [name]))
        return name

    value, width, outputs = conv("stem", "image", (3, 32), 3, 2), 32, []
    for stage in range(4):
        value, width = conv(f"down{stage}", value, (width, 2 * width), 3, 2), 2 * width
        for block in range(2):
            inner = conv(f"narrow{stage}.{block}", value, (width, width // 2), 1)
            inner = conv(f"wide{stage}.{block}", inner, (width // 2, width), 3)
            nodes.append(helper.make_node("Add", [value, inner], [f"sum{stage}.{block}"]))
            value = f"sum{stage}.{block}"
        if stage:
            outputs.append(conv(f"map{stage}", value, (width, 64), 1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 800, 608])
    maps = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64, None, None]) for name in outputs]
    graph = helper.make_graph(nodes, "detector", [image], maps, weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


JOBS = {"copy": copy, "prune": prune, "verify": verify}
PAIR = ("copy", "prune")


def measure(job: str, source: Path, folder: Path) -> Run:
    """Run a job in a process of its own."""
    target = folder / f"{job}.onnx"
    target.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, __file__, "--job", job, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(done.stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(float(said["seconds"]), cpu, bool(said["torch"]))


def compare(source: Path, pairs: int) -> bool:
    """Measure a file and print what was found; return whether it is within the limits."""
    name = source.name.partition(".")[0]
    with tempfile.TemporaryDirectory(prefix="graphprune-bench-") as folder:
        runs: dict[str, list[Run]] = {job: [] for job in PAIR}
        for number in range(pairs + 1):  # the first pair warms the file cache
            for job in sorted(PAIR, reverse=bool(number % 2)):
                run = measure(job, source, Path(folder))
                if number:
                    runs[job].append(run)
    ratio = statistics.median(p.seconds / c.seconds for p, c in zip(runs["prune"], runs["copy"], strict=True))
    prune_seconds = statistics.median(run.seconds for run in runs["prune"])
    copy_seconds = statistics.median(run.seconds for run in runs["copy"])
    cpu = statistics.median(run.cpu for run in runs["prune"])
    torch = any(run.torch for run in runs["prune"])
    faults = [
        f"more than {limit:g} {unit}"
        for limits, unit, value in ((LARGEST_RATIO, "times", ratio), (MOST_CPU, "CPU seconds", cpu))
        if (limit := limits.get(name)) is not None and value > limit
    ] + ["torch was imported"] * torch
    verdict = f"  FAILED: {', '.join(faults)}" if faults else ""
    print(
        f"{source.stem:32} prune {prune_seconds:6.3f} s, copy {copy_seconds:6.3f} s, ratio {ratio:5.2f}, "
        f"{cpu:5.2f} CPU s{verdict}",
        flush=True,
    )
    return not faults


def verification_is_cheap(source: Path) -> bool:
    """Time the verification of a file and print it; return whether it is within the limit."""
    with tempfile.TemporaryDirectory(prefix="graphprune-bench-") as folder:
        share = measure("verify", source, Path(folder)).seconds
        told = (Path(folder) / "verify.onnx").read_text("utf-8")
    print(f"{source.stem:32} verify {told}{'  FAILED' if share > 1 else ''}", flush=True)
    return share <= 1


def help_is_quick(runs: int) -> bool:
    """Time ``graphprune --help`` and print the median; return whether it is within the limit."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "graphprune", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    print(f"{'graphprune --help':32} {median:.3f} s{'  FAILED' if median > LONGEST_HELP else ''}")
    return median <= LONGEST_HELP


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Time pruning against reading and writing.")
    parser.add_argument("models", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each job")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        source, target = options.models
        seconds = JOBS[options.job](source, target)
        print(json.dumps({"seconds": seconds, "torch": "torch" in sys.modules}))
        return 0
    print(f"{os.cpu_count()} cores, medians of {options.pairs} pairs")
    good = [compare(source, options.pairs) for source in options.models]
    with tempfile.TemporaryDirectory(prefix="graphprune-bench-") as folder:
        large = detector(Path(folder) / "detector_800x608.onnx")
        good += [verification_is_cheap(source) for source in (*options.models, large)]
    return int(not all([*good, help_is_quick(options.pairs)]))


if __name__ == "__main__":
    sys.exit(main())
