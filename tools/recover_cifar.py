#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune a CIFAR-10 network and bring its accuracy back without training; print accuracies and processor time.

    python tools/recover_cifar.py resnet20_cifar10.onnx cifar10.npz --solver uniform --methods bn least-squares
    python tools/recover_cifar.py resnet56_cifar10.onnx cifar10.npz --solver sensitivity --set stages=3
    python tools/recover_cifar.py resnet20_cifar10.onnx cifar10.npz --solver bisection --adapt l1,l2,fpgm
    python tools/recover_cifar.py resnet20_cifar10.onnx cifar10.npz --methods least-squares blocks --draw 0 1 2
    python tools/recover_cifar.py resnet20_cifar10.onnx cifar10.npz --solver uniform --photographs photographs/

The archive holds x_train, x_test (uint8, NHWC) and y_test. Calibration sees 1,024 training images (the first ones, or
others by --draw, of several of which mean and spread are printed) and no label; test labels are looked at once, for the
figures that are printed. With --photographs, those of a folder calibrate, scaled down to 32x32 pixels: images of
another world than the network's own. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import graphprune
from graphprune.data.signature import input_specs

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


def main() -> None:
    """Print one line per result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--draw", type=int, nargs="+", default=[0], help="which 1,024 training images calibrate: the first ones are 0"
    )
    parser.add_argument("--photographs", type=Path, help="a folder whose images calibrate instead")
    add_options(parser, flops=0.5)
    options = parser.parse_args()
    data = np.load(options.data)
    model = graphprune.load(options.model)
    test = source(model, data["x_test"], data["y_test"].astype(np.int64))
    print(json.dumps({"model": options.model.stem, **accuracy(model, test)}), flush=True)
    if options.photographs:
        compare(options, model, scaled_down(options.photographs), test)
        return
    rows = []
    for draw in options.draw:
        start = draw * CALIBRATION
        rows += compare(options, model, data["x_train"][start : start + CALIBRATION], test)
    if len(options.draw) > 1:
        for line in over_draws(rows):
            print(json.dumps(line))


def scaled_down(folder: Path) -> np.ndarray:
    """Return the photographs of a folder at 32x32 pixels."""
    paths = sorted(folder.glob("*.jpg"))
    return np.stack(
        [np.asarray(Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BOX)) for path in paths]
    )


def add_options(parser: argparse.ArgumentParser, flops: float) -> None:
    """Add the options of :func:`compare`."""
    parser.add_argument("--flops", type=float, nargs="+", default=[flops])
    parser.add_argument("--solver", default="sensitivity")
    parser.add_argument("--criterion", default="l1")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--adapt", default="", help="criteria that compete for the channels")
    parser.add_argument("--methods", nargs="+", default=["least-squares"], help="of recovery; none is one, too")
    parser.add_argument("--copies", type=int, default=0, help="changed copies of each image to recover from as well")
    parser.add_argument("--mirror", action="store_const", const=1, dest="copies", help="the same as --copies 1")
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for the recovered models")


def compare(
    options: argparse.Namespace, model: graphprune.Model, images: np.ndarray, test: graphprune.Source
) -> list[dict[str, Any]]:
    """Prune a model to every share of its FLOPs, print what each method brings back, and return what was printed.

    Parameters
    ----------
    images : ndarray of uint8
        What calibrates.
    test : Source
        What is evaluated, with labels.
    """
    calibration = source(model, images)
    analysis = graphprune.analyze(model)
    rows = []
    choices = graphprune.SolveOptions(
        solver=options.solver,
        criterion=options.criterion,
        round_to=options.round_to,
        seed=options.seed,
        settings=dict(text.split("=", 1) for text in options.settings),
        adapt=tuple(filter(None, options.adapt.split(","))),
    )
    for share in options.flops:
        start = cpu_seconds()
        plan = graphprune.solve(analysis, graphprune.BudgetRequest("flops", share), choices, data=calibration)
        solved = cpu_seconds() - start
        for entry in plan.solver.trace:
            print(json.dumps(entry), flush=True)
        if choices.adapt:
            print(json.dumps(plan.solver.options["adapt"]), flush=True)
        for method in options.methods:
            rows.append(recovered(options, analysis, plan, method, calibration, test, solved))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def over_draws(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread (the lowest and the highest) of accuracy and processor time for every share and method."""
    kinds = dict.fromkeys((row["share"], row["method"]) for row in rows)
    lines = []
    for share, method in kinds:
        same = [row for row in rows if (row["share"], row["method"]) == (share, method)]
        line: dict[str, Any] = {"share": share, "method": method, "draws": len(same)}
        for name in ("top1", "cpu_s"):
            values = [row[name] for row in same]
            line[name] = {"mean": round(float(np.mean(values)), 4), "from": min(values), "to": max(values)}
        lines.append(line)
    return lines


def accuracy(model: graphprune.Model, test: graphprune.Source) -> dict[str, float | None]:
    """Return top-1 and top-5 accuracy."""
    found = graphprune.evaluate(model, test)
    return {"top1": found.top1, "top5": found.top5}


def recovered(
    options: argparse.Namespace,
    analysis: graphprune.Analysis,
    plan: graphprune.Plan,
    method: str,
    calibration: graphprune.Source,
    test: graphprune.Source,
    solved: float,
) -> dict[str, Any]:
    """Recover a pruned model by a method, save it if that is wanted, and return what is printed of it."""
    start = cpu_seconds()
    pruned, errors = graphprune.apply(analysis, plan), []
    if method != "none":
        wanted = graphprune.RecoverOptions(
            method=method, seed=options.seed, samples=len(calibration), copies=options.copies
        )
        found = graphprune.recover(analysis, pruned, plan, calibration, wanted)
        pruned, errors = found.model, [round(found.before, 4), round(found.after, 4)]
    seconds = solved + cpu_seconds() - start
    if options.save:
        name = f"{options.model.stem}-{plan.budget.target:g}-{options.solver}-{method}.onnx"
        graphprune.save(pruned, options.save / name, force=True)
    return {
        "share": plan.budget.target,
        "flops": round(plan.budget.after / plan.budget.before, 4),
        "solver": options.solver,
        "method": method,
        **accuracy(pruned, test),
        "held_out_error": errors,
        "cpu_s": round(seconds, 1),
        "widths": [len(group.kept) for group in plan.groups],
    }


if __name__ == "__main__":
    main()
