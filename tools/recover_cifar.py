#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune a CIFAR-10 network and bring its accuracy back without training; print accuracies and processor time.

    python tools/recover_cifar.py resnet20_cifar10.onnx cifar10.npz --flops 0.5 --widths uniform
    python tools/recover_cifar.py resnet56_cifar10.onnx cifar10.npz --flops 0.5 --widths sensitivity

The archive holds x_train, x_test (uint8, NHWC) and y_test. Calibration sees the first 1,024 training images and no
label; test labels are looked at once, for the figures that are printed. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

import graphprune
from graphprune.calibrate.signature import input_specs
from graphprune.recovery.search import SearchOptions, search
from graphprune.recovery.sensitivity import SensitivityOptions
from graphprune.solvers.levels import levels

PREPROCESSING = graphprune.Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CALIBRATION = 1024


def source(model: graphprune.Model, images: np.ndarray, labels: np.ndarray | None = None) -> graphprune.Source:
    """Return 8-bit images as a source."""
    specs = input_specs(model)
    return graphprune.from_arrays("CIFAR-10", specs, {specs[0].name: images}, labels, PREPROCESSING)


def cpu_seconds() -> float:
    """Return the processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--flops", type=float, nargs="+", default=[0.5])
    parser.add_argument("--widths", choices=["uniform", "sensitivity"], default="sensitivity")
    parser.add_argument("--stages", type=int, default=2, help="steps in which the search approaches the budget")
    parser.add_argument("--measured", type=int, default=128, help="images on which sensitivity is measured")
    parser.add_argument("--methods", nargs="+", default=["bn", "bias", "least-squares"], help="with uniform widths")
    parser.add_argument("--criterion", default="l1", help="with uniform widths")
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--save", type=Path, help="folder for the recovered models")
    return parser.parse_args()


def main() -> None:
    """Print one line per result."""
    options = parse()
    data = np.load(options.data)
    model = graphprune.load(options.model)
    calibration = source(model, data["x_train"][:CALIBRATION])
    test = source(model, data["x_test"], data["y_test"].astype(np.int64))
    analysis = graphprune.analyze(model)
    print(json.dumps({"model": options.model.stem, "dense": graphprune.evaluate(model, test).top1}), flush=True)
    for share in options.flops:
        for name, plan, recovery, seconds in runs(options, analysis, share, calibration):
            row = {
                "flops": round(plan.budget.after / plan.budget.before, 4),
                "method": name,
                "top1": graphprune.evaluate(recovery.model, test).top1,
                "held_out_error": [round(recovery.before, 4), round(recovery.after, 4)],
                "cpu_s": round(seconds, 1),
                "widths": [len(group.kept) for group in plan.groups],
            }
            print(json.dumps(row), flush=True)
            if options.save:
                graphprune.save(
                    recovery.model, options.save / f"{options.model.stem}-{share:g}-{name}.onnx", force=True
                )


def runs(options: argparse.Namespace, analysis: graphprune.Analysis, share: float, calibration: graphprune.Source):
    """Yield the name, plan, recovery and processor time of each way to do it."""
    start, clock = cpu_seconds(), time.perf_counter()
    budget = graphprune.BudgetRequest("flops", share)
    choices = graphprune.SolveOptions(solver="uniform", criterion=options.criterion, round_to=options.round_to)
    plan = graphprune.solve(analysis, budget, choices)
    if options.widths == "sensitivity":
        # Sixteenths of a group are fine enough, and leave few enough widths to choose from.
        allowed = [every(levels(group.size, group.channels, options.round_to)) for group in analysis.groups]
        settings = SearchOptions(stages=options.stages, sensitivity=SensitivityOptions(measured=options.measured))
        found = search(analysis, plan, calibration, allowed, settings)
        for entry in found.trace:
            print(json.dumps({**entry, "wall_s": round(time.perf_counter() - clock, 1)}), flush=True)
        yield "sensitivity", found.plan, found.recovery, cpu_seconds() - start
        return
    pruned = graphprune.apply(analysis, plan)
    for method in options.methods:
        start = cpu_seconds()
        recovery = graphprune.recover(analysis, pruned, plan, calibration, graphprune.RecoverOptions(method=method))
        yield f"uniform {options.criterion} {method}", plan, recovery, cpu_seconds() - start


def every(widths: np.ndarray, count: int = 16) -> np.ndarray:
    """Return at most `count` of the widths, the full one among them."""
    step = max(1, len(widths) // count)
    return widths[::-1][::step][::-1]


if __name__ == "__main__":
    main()
