# SPDX-License-Identifier: Apache-2.0
"""Whether fewer FLOPs are less time, and whether a latency budget is met: measured in pairs, on this machine.

::

    python tools/bench_latency.py resnet50.onnx mobilenet_v2.onnx --markdown docs/latency.md
    python tools/bench_latency.py mobilenet_v2.onnx --runtimes openvino,mnn --markdown docs/latency.md

Each model is pruned to half of its FLOPs with the widths of this processor (`--round-to auto`) and, for comparison,
with any widths (`--round-to 1`), and to half of its time (`--latency 0.5`). Every pruned model then runs in turn with
its original, one thread, several times over; what counts is the median of the ratios, and their range is shown. With
`--runtimes`, all of that is measured in these, with what `auto` means there; it goes to a section of its own. The exit
status is 1 if aligned widths take more than 1.10 times their share of the FLOPs, or a latency budget is missed by more
than 5 %.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from page_sections import replace_section
from zoo_table import machine, versions

from graphprune import api
from graphprune.cost.latency.bench import paired_timing
from graphprune.cost.latency.environment import ONNXRUNTIME
from graphprune.export.runtime import make_runtime
from graphprune.export.runtime_stopwatch import stopwatch_for
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions

MOST_TIME_PER_FLOP = 1.10
TOLERANCE = 0.05
ROUNDS = 5


@dataclass(frozen=True)
class Result:
    """One pruned model: what was asked for, what is left of the FLOPs, and of the time in each round."""

    model: str
    runtime: str
    asked: str
    flops: float
    predicted: float | None
    times: tuple[float, ...]

    @property
    def time(self) -> float:
        """The share of the time that is left: the median over the rounds."""
        return statistics.median(self.times)

    @property
    def fine(self) -> bool:
        """Whether it is as fast as it should be."""
        if self.predicted is not None:
            return self.time <= 0.5 * (1 + TOLERANCE)
        return "auto" not in self.asked or self.time <= MOST_TIME_PER_FLOP * self.flops


CASES = (
    ("--flops 0.5 --round-to auto", BudgetRequest("flops", 0.5), SolveOptions()),
    ("--flops 0.5 --round-to 1", BudgetRequest("flops", 0.5), SolveOptions(round_to=1)),
    ("--latency 0.5", BudgetRequest("latency", 0.5), SolveOptions()),
)


def run(path: Path, asked: str, request: BudgetRequest, options: SolveOptions) -> Result:
    """Prune one model as asked, and time it against the original."""
    watch = stopwatch_for(options.runtime)
    analysis = api.analyze(api.load(path))
    plan = api.solve(analysis, request, options)
    flops = sum(layer.flops_after for layer in plan.layers) / sum(layer.flops_before for layer in plan.layers)
    with tempfile.TemporaryDirectory(prefix="graphprune-latency-") as folder:
        pruned = api.save(api.apply(analysis, plan), Path(folder) / "pruned.onnx")
        times = tuple(paired_timing(path, pruned, plan.model.inputs, watch).ratio for _ in range(ROUNDS))
    predicted = plan.budget.after / plan.budget.before if request.metric == "latency" else None
    return Result(path.stem, options.runtime, asked, flops, predicted, times)


def row(result: Result) -> str:
    """Return a line of the table."""
    predicted = "" if result.predicted is None else f"{result.predicted:.3f}"
    spread = f"{min(result.times):.3f} to {max(result.times):.3f}"
    per_flop = f"{result.time / result.flops:.2f}"
    cells = (
        result.model,
        *([] if result.runtime == ONNXRUNTIME else [result.runtime]),
        f"`{result.asked}`",
        f"{result.flops:.3f}",
        predicted,
        f"{result.time:.3f}",
        spread,
        per_flop,
    )
    return f"| {' | '.join(cells)} |"


def page(results: list[Result]) -> str:
    """Return what stands at the top of the page."""
    rows = "\n".join(row(result) for result in results)
    return f"""Shares that are left after pruning, of the FLOPs and of the time in onnxruntime (CPU, one thread,
original and pruned model in turn; the median of {ROUNDS} rounds, and their range). *Predicted* is what the tables of
single layers say of a latency budget.

`python tools/bench_latency.py MODEL... --markdown docs/latency.md`, {datetime.datetime.now(tz=datetime.UTC).date()},
seed 0, {machine()} (shared and busy); {versions()}. Networks of torchvision with random weights, exported at
224 x 224.

| model | asked | FLOPs | predicted | time | range | time per FLOP |
|---|---|--:|--:|--:|---|--:|
{rows}
"""


def section(results: list[Result], models: list[Path], runtimes: str) -> str:
    """Return the section on other runtimes."""
    rows = "\n".join(row(result) for result in results)
    names = {result.runtime: make_runtime(result.runtime).version() for result in results}
    known = ", ".join(f"{name} {version}" for name, version in names.items())
    files = " ".join(path.name for path in models)
    return f"""The same in other runtimes: layers and networks are measured where `--runtime` says, and `auto` is what
it means there. `python tools/bench_latency.py {files} --runtimes {runtimes} --markdown docs/latency.md`,
{datetime.datetime.now(tz=datetime.UTC).date()}, {machine()}, shared with other work, one thread;
{known}.

| model | runtime | asked | FLOPs | predicted | time | range | time per FLOP |
|---|---|---|--:|--:|--:|---|--:|
{rows}
"""


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure what pruning saves in time.")
    parser.add_argument("models", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--runtimes", metavar="NAMES", default=ONNXRUNTIME, help="with commas")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = []
    for path, runtime in product(given.models, given.runtimes.split(",")):
        for asked, request, options in CASES:
            results.append(run(path, asked, request, replace(options, runtime=runtime)))
            print(row(results[-1]), "" if results[-1].fine else "  MISSED", flush=True)
    if given.markdown and given.runtimes == ONNXRUNTIME:
        replace_section(given.markdown, "# Latency", page(results))
    elif given.markdown:
        replace_section(given.markdown, "## In other runtimes", section(results, given.models, given.runtimes))
    return int(not all(result.fine for result in results))


if __name__ == "__main__":
    sys.exit(main())
