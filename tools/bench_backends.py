# SPDX-License-Identifier: Apache-2.0
"""What it costs to let other processes try solvers and budgets, and what it brings.

::

    OMP_NUM_THREADS=1 python tools/bench_backends.py model.onnx
    OMP_NUM_THREADS=1 python tools/bench_backends.py model.onnx --calib samples.npz --solvers stage-wise

One sweep over budgets in this process, and the same by two processes of each backend, in turn, `--rounds` times.
Printed are medians: seconds until the first result, seconds in all, the ratio to this process, and what a trial costs
beyond its work: twice the seconds of the two processes less those of this one, by trials. A Dask cluster is measured
twice: started for the sweep, and there already.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import cast

from graphprune import Contest, Sweep, Workers, sweep
from graphprune.choices import Backend
from graphprune.trials.meter import Measures

PROCESSES = 2


@contextmanager
def workers(name: str) -> Generator[Workers]:
    """Give the processes of one row; a cluster is there before and after."""
    if name == "this process":
        yield Workers()
    elif name == "dask, there already":
        from distributed import LocalCluster

        with LocalCluster(n_workers=PROCESSES, threads_per_worker=1, dashboard_address=None) as cluster:
            cluster.get_client().wait_for_workers(PROCESSES)
            yield Workers(backend="dask", address=cluster.scheduler_address)
    else:
        yield Workers(PROCESSES, cast("Backend", name))


def seconds(model: Path, what: Sweep) -> tuple[float, float]:
    """Return when the first trial of a sweep was there, and when the last."""
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sweep(model, Path(folder, "table.csv"), what, report=lambda _: moments.append(time.perf_counter() - start))
        return moments[0], time.perf_counter() - start


def main() -> None:
    """Print a row for every backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--solvers", nargs="+", default=["bisection", "uniform"])
    parser.add_argument("--calib", default="", help="samples from which every result is recovered")
    parser.add_argument("--backends", nargs="+", default=["loky", "dask", "dask, there already", "ray"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measures = Measures(calib=options.calib)
    what = Sweep(contest=Contest(tuple(options.solvers), ("l1",), measures=measures))
    names = ["this process", *options.backends]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            with workers(name) as given:
                times[name].append(seconds(options.model, replace(what, workers=given)))
    trials = len(what.requests) * what.contest.count
    alone = median(whole for _, whole in times[names[0]])
    print(f"{options.model.stem}: {trials} trials, {PROCESSES} processes, medians of {options.rounds} rounds")
    print("\n| processes | first result, s | all, s | ratio | overhead of a trial, s |\n|---|--:|--:|--:|--:|")
    for name in names:
        first, whole = (median(column) for column in zip(*times[name], strict=True))
        extra = 0.0 if name == names[0] else (PROCESSES * whole - alone) / trials
        print(f"| {name} | {first:.1f} | {whole:.1f} | {whole / alone:.2f} | {extra:.2f} |", flush=True)


if __name__ == "__main__":
    main()
