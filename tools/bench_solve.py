# SPDX-License-Identifier: Apache-2.0
"""How long pruning takes, next to reading and writing the same file.

::

    python tools/bench_solve.py ~/zoo/resnet50.legacy.onnx ~/zoo/densenet201.legacy.onnx

For each file two jobs run in turn, each time in a fresh process: *copy* is ``onnx.load`` and ``onnx.save``, *prune* is
loading, analysing, solving, surgery, the fidelity check and saving, without verification. What is compared is the time
from after the imports to the end, as the median of the ratios of the pairs; CPU seconds are those of the whole process,
its start included. Then ``graphprune --help`` is timed. Exit status 1 if a limit is exceeded, or if torch was imported.
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


JOBS = {"copy": copy, "prune": prune}


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
        runs: dict[str, list[Run]] = {job: [] for job in JOBS}
        for number in range(pairs + 1):  # the first pair warms the file cache
            for job in sorted(JOBS, reverse=bool(number % 2)):
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
    return int(not all([*good, help_is_quick(options.pairs)]))


if __name__ == "__main__":
    sys.exit(main())
