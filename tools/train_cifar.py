#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune a CIFAR-10 network while it trains, by each method, beside pruning first and training afterwards.

    python tools/train_cifar.py resnet20_cifar10.onnx cifar10.npz --flops 0.5 --epochs 1 --images 10000
    python tools/train_cifar.py resnet20_cifar10.onnx cifar10.npz --methods "cac:estimator=first-order" slimming

The archive holds x_train, x_test (uint8, NHWC), y_train and y_test. All runs see the same training images with labels
for the same number of epochs in all; a method's last epochs may be a finetune round (--closing). Least squares sees the
first 1,024 of them, without labels. Test labels are looked at once, for the figures that are printed.
One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

import graphprune
from graphprune.data.signature import input_specs
from graphprune.solvers import training, widths
from graphprune.solvers.registry import chosen
from graphprune.training.finetune import finetune
from graphprune.training.finetune_options import FinetuneOptions
from graphprune.training.pruning.train import TrainOptions

PREPROCESSING = graphprune.Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CALIBRATION = 1024
BASELINES = ("bisection+finetune", "least-squares", "least-squares+finetune")


def source(model: graphprune.Model, images: np.ndarray, labels: np.ndarray | None) -> graphprune.Source:
    """Return 8-bit images as a source."""
    specs = input_specs(model)
    return graphprune.from_arrays("CIFAR-10", specs, {specs[0].name: images}, labels, PREPROCESSING)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--epochs", type=float, default=1.0, help="in all")
    parser.add_argument("--closing", type=float, default=0.0, help="of them, after a method has cut")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recover", choices=["least-squares", "none"], nargs="+", default=["least-squares"])
    parser.add_argument("--teacher", action="store_true", help="learn from the original, too")
    parser.add_argument("--methods", nargs="+", default=[*BASELINES, *training.names()])
    return parser.parse_args()


class Bench:
    """One network, its data, and the ways to make it smaller."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        data = np.load(options.data)
        self.model = graphprune.load(options.model)
        labels = data["y_train"][: options.images].astype(np.int64)
        self.train = source(self.model, data["x_train"][: options.images], labels)
        self.calibration = source(self.model, data["x_train"][:CALIBRATION], None)
        self.test = source(self.model, data["x_test"], data["y_test"].astype(np.int64))
        self.analysis = graphprune.analyze(self.model)
        self.budget = graphprune.BudgetRequest("flops", options.flops)

    def how(self, epochs: float) -> FinetuneOptions:
        """Return how is trained."""
        chosen = self.options
        return FinetuneOptions(epochs=epochs, rate=chosen.rate, device="cpu", seed=chosen.seed, held_out=512)

    def tuned(self, pruned: graphprune.Model, epochs: float) -> graphprune.Model:
        """Return a model after a finetune round."""
        teacher = self.model if self.options.teacher else None
        return finetune(pruned, self.train, teacher, self.how(epochs)).model if epochs else pruned

    def baseline(self, name: str) -> tuple[graphprune.Model, graphprune.Plan]:
        """Prune first, then recover or finetune."""
        options = graphprune.SolveOptions(solver="bisection", round_to=self.options.round_to)
        plan = graphprune.solve(self.analysis, self.budget, options)
        model = graphprune.apply(self.analysis, plan)
        if name.startswith("least-squares"):
            model = graphprune.recover(self.analysis, model, plan, self.calibration).model
        return (self.tuned(model, self.options.epochs) if name.endswith("finetune") else model), plan

    def method(self, text: str, recover: str) -> tuple[graphprune.Model, graphprune.Plan]:
        """Prune while training; `text` is a name, and settings after a colon."""
        name, _, rest = text.partition(":")
        kind = training.get(name)
        given = dict(part.split("=", 1) for part in rest.split(",") if part)
        own, further = chosen(given, kind, widths.get(kind.solver))
        solving = graphprune.SolveOptions(
            solver=kind.solver, round_to=self.options.round_to, settings=further, seed=self.options.seed
        )
        how = self.how(self.options.epochs - self.options.closing)
        recovery = graphprune.RecoverOptions() if recover == "least-squares" else None
        options = TrainOptions(how, solving, self.model if self.options.teacher else None, recovery)
        found = graphprune.train(self.analysis, self.train, self.budget, kind(**own), options)
        pruned = graphprune.apply(found.analysis, found.plan)
        graphprune.verify(found.analysis, pruned, found.plan)
        return self.tuned(pruned, self.options.closing), found.plan


def cpu_seconds() -> float:
    """Return the processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print one line per method."""
    options = parse()
    torch.set_num_threads(1)
    bench = Bench(options)
    dense = graphprune.evaluate(bench.model, bench.test).top1
    print(json.dumps({"model": options.model.stem, "dense": dense}), flush=True)
    runs = [(name, "") for name in options.methods if name in BASELINES]
    runs += [(name, how) for name in options.methods if name not in BASELINES for how in options.recover]
    for name, how in runs:
        start, wall = cpu_seconds(), time.perf_counter()
        model, plan = bench.baseline(name) if name in BASELINES else bench.method(name, how)
        row = {
            "method": name,
            "recover": how,
            "flops": round(plan.budget.after / plan.budget.before, 4),
            "epochs": 0 if name == "least-squares" else options.epochs,
            "closing": 0 if name in BASELINES else options.closing,
            "seed": options.seed,
            "cpu_s": round(cpu_seconds() - start, 1),
            "wall_s": round(time.perf_counter() - wall, 1),
            "top1": graphprune.evaluate(model, bench.test).top1,
            "widths": [len(group.kept) for group in plan.groups],
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
