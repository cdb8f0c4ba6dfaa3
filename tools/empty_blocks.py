#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What it is worth in time that whole blocks may go: accuracy and time, by widths alone and with --allow-empty.

    python tools/empty_blocks.py resnet56_cifar10.onnx cifar10.npz --latency 0.8 0.65 0.5

A CIFAR-10 network is pruned by `--solver sensitivity` to shares of its time, both ways, and recovered by least squares
from the first 1,024 training images. All pruned networks then run in turn with the original, one thread, several times
over; what is printed is the median of the ratios. Test labels are looked at for the accuracies that are printed.
The last line says what share of the time each way takes at the accuracies that both reach, between measured points.
One thread: OMP_NUM_THREADS=1; nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from recover_cifar import CALIBRATION, cpu_seconds, source

import graphprune
from graphprune.cost.latency.bench import paired_timing
from graphprune.cost.latency.environment import ONNXRUNTIME
from graphprune.export.runtime_stopwatch import stopwatch_for

ROUNDS = 5
GRID = 0.0005
"""Steps of accuracy at which both ways are compared."""


def main() -> None:
    """Print one line for every share and way, and one that compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.8, 0.65, 0.5], help="shares of the time")
    options = parser.parse_args()
    data = np.load(options.data)
    dense = graphprune.load(options.model)
    analysis = graphprune.analyze(dense)
    seen = source(dense, data["x_train"][:CALIBRATION])
    test = source(dense, data["x_test"], data["y_test"].astype(np.int64))
    print(json.dumps({"model": options.model.stem, "top1": graphprune.evaluate(dense, test).top1}), flush=True)
    rows: list[dict[str, Any]] = []
    pruned = []
    for share in options.latency:
        for emptied in (False, True):
            before = cpu_seconds()
            choices = graphprune.SolveOptions(solver="sensitivity", criterion="l1", allow_empty=emptied)
            plan = graphprune.solve(analysis, graphprune.BudgetRequest("latency", share), choices, data=seen)
            how = graphprune.RecoverOptions(samples=CALIBRATION)
            model = graphprune.recover(analysis, graphprune.apply(analysis, plan), plan, seen, how).model
            pruned.append((model, plan.model.inputs))
            rows.append(
                {
                    "asked": share,
                    "allow_empty": emptied,
                    "top1": graphprune.evaluate(model, test).top1,
                    "empty_groups": sum(not group.kept for group in plan.groups),
                    "nodes": [len(dense.proto.graph.node), len(model.proto.graph.node)],
                    "cpu_s": round(cpu_seconds() - before),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        watch = stopwatch_for(ONNXRUNTIME)
        for row, (model, inputs) in zip(rows, pruned, strict=True):
            path = Path(folder, "pruned.onnx")
            graphprune.save(model, path, force=True)
            ratios = [paired_timing(options.model, path, inputs, watch).ratio for _ in range(ROUNDS)]
            row["time"] = round(statistics.median(ratios), 3)
            print(json.dumps({name: row[name] for name in ("asked", "allow_empty", "top1", "time")}), flush=True)
    print(json.dumps(at_equal_accuracy(rows)))


def at_equal_accuracy(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean share of the time by each way, over the accuracies that both have reached."""
    lines = {}
    for emptied in (False, True):
        own = sorted((row["top1"], row["time"]) for row in rows if row["allow_empty"] is emptied)
        lines[emptied] = np.array(own).T
    low, high = max(line[0][0] for line in lines.values()), min(line[0][-1] for line in lines.values())
    grid = np.arange(low, high + GRID / 2, GRID)
    if not len(grid):
        return {"compared_at": "no accuracy that both ways reach"}
    times = {emptied: float(np.interp(grid, *line).mean()) for emptied, line in lines.items()}
    shown = {"widths_alone": round(times[False], 3), "allow_empty": round(times[True], 3)}
    return {"from": round(low, 4), "to": round(high, 4)} | shown


if __name__ == "__main__":
    main()
