#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Widen a CIFAR-10 network and prune it back to what it cost, by tying channels or by their accuracy change.

    python tools/wide_cifar.py resnet20_cifar10.onnx cifar10.npz --factor 1.5 --epochs 1 --images 5000

The archive is that of tools/train_cifar.py, whose loop this is. Prints a line each for the original, the original
trained for as many epochs, and each way back from the wide network, which costs as much as the original again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from train_cifar import cpu_seconds, source

import graphprune
from graphprune.solvers import training
from graphprune.training.finetune import finetune
from graphprune.training.options import FinetuneOptions
from graphprune.training.pruning.run import TrainOptions


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--factor", type=float, default=1.5)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=["csgd", "cac"])
    return parser.parse_args()


def main() -> None:
    """Print a line per way."""
    given = parse()
    torch.set_num_threads(1)
    data = np.load(given.data)
    narrow = graphprune.load(given.model)
    train = source(narrow, data["x_train"][: given.images], data["y_train"][: given.images].astype(np.int64))
    test = source(narrow, data["x_test"], data["y_test"].astype(np.int64))
    how = FinetuneOptions(epochs=given.epochs, rate=given.rate, device="cpu", seed=given.seed, held_out=512)
    analysis = graphprune.analyze(narrow)
    before = analysis.cost.flops(analysis.cost.sizes)
    found = graphprune.widen(analysis, graphprune.WidenOptions(given.factor, given.noise, given.seed))
    rows = {"original": lambda: (narrow, before), "trained": lambda: (finetune(narrow, train, None, how).model, before)}
    for name in given.methods:
        rows[name] = lambda name=name: squeezed(found.model, train, name, how, before)
    for name, run in rows.items():
        start, wall = cpu_seconds(), time.perf_counter()
        try:
            model, cost = run()
        except graphprune.GraphPruneError as error:
            print(json.dumps({"way": name, "failed": str(error)}), flush=True)
            continue
        spent = {"cpu_s": round(cpu_seconds() - start, 1), "wall_s": round(time.perf_counter() - wall, 1)}
        row = {"way": name, "flops": cost, "wide": found.flops, "epochs": given.epochs, "seed": given.seed, **spent}
        print(json.dumps(row | {"top1": graphprune.evaluate(model, test).top1}), flush=True)


def squeezed(
    wide: graphprune.Model, train: graphprune.Source, name: str, how: FinetuneOptions, limit: int
) -> tuple[graphprune.Model, int]:
    """Prune a wide network while it trains; return the model and its cost."""
    method = training.get(name)()
    solving = graphprune.SolveOptions(solver=method.solver, round_to=1, seed=how.seed)
    budget = graphprune.BudgetRequest("flops", f"{limit / 1000}k")
    found = graphprune.train(wide, train, budget, method, TrainOptions(replace(how), solving))
    pruned = graphprune.apply(found.analysis, found.plan)
    graphprune.verify(found.analysis, pruned, found.plan)
    for entry in found.plan.solver.trace:
        if "deviation" in entry:
            print(json.dumps(entry), flush=True)
    return pruned, found.plan.budget.after


if __name__ == "__main__":
    main()
