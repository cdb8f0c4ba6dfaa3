# SPDX-License-Identifier: Apache-2.0
"""How time and memory of the analysis grow with the graph.

::

    python tools/bench_scaling.py
    python tools/bench_scaling.py shuffle --largest 0.1

Synthetic graphs of growing size: *nodes*, residual blocks with branches at a fixed width; *channels*, a fixed graph
that gets wider; *shuffle* and *attention*, with a choice to decide per block or several. Each is analysed in a fresh
process; printed are CPU seconds by stage (after the imports), peak memory above that of the imports, and rates. Below
each table stands the exponent of the growth, fitted on a log-log scale: 1 is linear. Exit status 1 if an exponent
exceeds the limit, or if the 10^6 channels take longer than they may.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SWEEPS: dict[str, tuple[str, tuple[tuple[int, int], ...]]] = {
    "nodes": ("residual", tuple((blocks, 64) for blocks in (90, 180, 360, 715, 1428))),
    "channels": ("residual", tuple((250, width) for width in (64, 128, 256, 512, 1000))),
    "shuffle": ("shuffle", tuple((blocks, 64) for blocks in (62, 125, 250, 500, 1000))),
    "attention": ("attention", tuple((blocks, 64) for blocks in (62, 125, 250, 500, 1000))),
}
"""Family and (blocks, width) of the graphs of each sweep."""
STAGES = {
    "shapes": ("flatten", "inline_functions", "Graph", "fit_inputs", "Constants"),
    "labels": ("propagate",),
    "resolve": ("resolve_grouped", "rank_outputs", "tied_by_rank"),
    "groups": ("Carriers", "form_groups", "describe"),
    "costs": ("Accounts",),
}
"""Functions of `graphprune.analysis.analysis` by stage; what is left over is counted as costs, too."""
LARGEST_EXPONENT = {"cpu": 1.15, "memory": 1.15}
MOST_CPU = 5.0
"""CPU seconds for the widest graph of "channels", which has 10^6."""
LEAST = {"cpu": 0.05, "memory": 4.0}
"""Seconds and MB below which a point says nothing about growth."""


@dataclass
class Point:
    """One graph: its size and what its analysis took; memory in MB."""

    nodes: int
    channels: int
    groups: int = 0
    memory: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        """CPU seconds of all stages."""
        return sum(self.stages.values())


def analyse(file: Path) -> dict[str, Any]:
    """Analyse a file in this process; return CPU seconds by stage, peak memory and the number of groups."""
    from graphprune import api
    from graphprune.analysis import analysis

    stages = dict.fromkeys(("load", *STAGES), 0.0)
    for stage, names in STAGES.items():
        for name in names:
            setattr(analysis, name, _timed(getattr(analysis, name), stages, stage))
    before = _peak()
    started = time.process_time()
    model = api.load(file)
    stages["load"] = time.process_time() - started
    found = api.analyze(model)
    stages["costs"] += time.process_time() - started - sum(stages.values())
    return {"stages": stages, "memory": _peak() - before, "groups": len(found.groups)}


def _timed(function: Callable[..., Any], stages: dict[str, float], stage: str) -> Callable[..., Any]:
    """Return a function that adds its CPU seconds to a stage."""

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        try:
            return function(*arguments, **named)
        finally:
            stages[stage] += time.process_time() - started

    return timed


def _peak() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1024)


def measure(family: str, blocks: int, width: int) -> Point:
    """Build and analyse a graph, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="graphprune-bench-") as folder:
        job = [family, str(blocks), str(width), folder]
        built = _child("--build", *job)
        found = _child("--analyse", built["file"])
    return Point(built["nodes"], built["channels"], found["groups"], found["memory"], found["stages"])


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def exponent(sizes: Sequence[float], values: Sequence[float], least: float) -> float | None:
    """Fit ``value = a * size ** exponent`` to the points that are large enough; None if there are fewer than three."""
    points = [(size, value) for size, value in zip(sizes, values, strict=True) if value >= least]
    if len(points) < 3:
        return None
    logs = np.log(np.array(points))
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def sweep(name: str, largest: float) -> bool:
    """Measure a sweep and print its table; return whether it is within the limits."""
    family, sizes = SWEEPS[name]
    stages = ("load", *STAGES)
    print(f"\n{name}")
    print(f"{'nodes':>7} {'channels':>9} {'groups':>6}" + "".join(f" {stage:>8}" for stage in stages), end="")
    print(f" {'CPU s':>7} {'MB':>6} {'nodes/s':>8} {'channels/s':>10}")
    points = []
    for blocks, width in sizes:
        blocks = blocks if name == "channels" else max(1, round(blocks * largest))
        width = max(8, round(width * largest)) if name == "channels" else width
        point = measure(family, blocks, width)
        points.append(point)
        print(f"{point.nodes:7} {point.channels:9} {point.groups:6}", end="")
        print("".join(f" {point.stages[stage]:8.3f}" for stage in stages), end="")
        print(f" {point.cpu:7.2f} {point.memory:6.0f} {point.nodes / point.cpu:8.0f}", end="")
        print(f" {point.channels / point.cpu:10.0f}", flush=True)
    return _within(name, points)


def _within(name: str, points: Sequence[Point]) -> bool:
    """Print the exponents of a sweep; return whether they, and the time of the widest graph, are within the limits."""
    size = [point.channels if name == "channels" else point.nodes for point in points]
    good, said = True, []
    for what, limit in LARGEST_EXPONENT.items():
        found = exponent(size, [getattr(point, what) for point in points], LEAST[what])
        good &= found is None or found <= limit
        said.append(f"{what} {'-' if found is None else f'{found:.2f}'}")
    widest = points[-1]
    slow = name == "channels" and widest.channels >= 1e6 and widest.cpu > MOST_CPU
    print(f"exponents: {', '.join(said)}{'' if good and not slow else '  FAILED'}")
    return good and not slow


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure how the analysis scales.")
    parser.add_argument("sweeps", nargs="*", default=list(SWEEPS), metavar="SWEEP", help=f"of {', '.join(SWEEPS)}")
    parser.add_argument("--largest", type=float, default=1.0, help="factor on all sizes")
    parser.add_argument("--build", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--analyse", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        from bench_graphs import build

        family, blocks, width, folder = options.build
        file, nodes, channels = build(family, int(blocks), int(width), Path(folder))
        print(json.dumps({"file": str(file), "nodes": nodes, "channels": channels}))
        return 0
    if options.analyse:
        print(json.dumps(analyse(options.analyse)))
        return 0
    good = [sweep(name, options.largest) for name in options.sweeps]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
