#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train a small network from scratch and prune it on the way, against pruning afterwards and against no pruning.

    python tools/scratch_cifar.py resnet20_cifar10.onnx cifar10.npz --small 0.12 --epochs 6 --images 10000

The small network is what uniform widths leave of the given one at a share of its FLOPs, with weights drawn anew. Every
way but the first ends at half of its FLOPs, and all have as many epochs. `whole` trains it and prunes nothing;
`narrow` trains what uniform widths leave of it; `bisection` trains it for half of the epochs, prunes, recovers by least
squares or not, and finetunes it for the other half; `white-box` and `cac` prune while they train. The archive is that
of tools/train_cifar.py. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from train_cifar import CALIBRATION, cpu_seconds, source
from wide_cifar import fresh

import graphprune
from graphprune.solvers import training
from graphprune.training.finetune import finetune
from graphprune.training.finetune_options import FinetuneOptions
from graphprune.training.pruning.train import TrainOptions

WAYS = ("whole", "narrow", "bisection", "white-box", "cac", "cac:estimator=first-order")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--small", type=float, default=0.12)
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help="and other methods, as in tools/train_cifar.py")
    parser.add_argument("--recover", choices=["least-squares", "none"], nargs="+", default=["least-squares", "none"])
    return parser.parse_args()


class Race:
    """One network from scratch, and the ways to train and prune it."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        data = np.load(given.data)
        self.network = fresh(uniform(graphprune.load(given.model), given.small), given.seed)
        labels = data["y_train"][: given.images].astype(np.int64)
        self.train = source(self.network, data["x_train"][: given.images], labels)
        self.calibration = source(self.network, data["x_train"][:CALIBRATION], None)
        self.test = source(self.network, data["x_test"], data["y_test"].astype(np.int64))
        self.half = graphprune.BudgetRequest("flops", 0.5)

    def how(self, epochs: float) -> FinetuneOptions:
        """Return how is trained."""
        return FinetuneOptions(epochs=epochs, rate=self.given.rate, device="cpu", seed=self.given.seed, held_out=512)

    def run(self, way: str, recover: str) -> graphprune.Model:
        """Return the network at the end of a way."""
        epochs = self.given.epochs
        if way == "whole":
            return finetune(self.network, self.train, None, self.how(epochs)).model
        if way == "narrow":
            narrow = fresh(uniform(self.network, 0.5), self.given.seed)
            return finetune(narrow, self.train, None, self.how(epochs)).model
        if way == "bisection":
            learned = graphprune.analyze(finetune(self.network, self.train, None, self.how(epochs / 2)).model)
            plan = graphprune.solve(learned, self.half, graphprune.SolveOptions(solver=way, round_to=1))
            pruned = graphprune.apply(learned, plan)
            if recover == "least-squares":
                pruned = graphprune.recover(learned, pruned, plan, self.calibration).model
            return finetune(pruned, self.train, None, self.how(epochs / 2)).model
        return self.pruned(way, recover)

    def pruned(self, text: str, recover: str) -> graphprune.Model:
        """Prune while training by a method; its settings follow a colon."""
        name, _, rest = text.partition(":")
        kind = training.get(name)
        method = kind(**dict(part.split("=", 1) for part in rest.split(",") if part))
        solving = graphprune.SolveOptions(solver=method.solver, round_to=1, seed=self.given.seed)
        recovery = graphprune.RecoverOptions() if recover == "least-squares" else None
        options = TrainOptions(self.how(self.given.epochs), solving, recovery=recovery)
        found = graphprune.train(self.network, self.train, self.half, method, options)
        pruned = graphprune.apply(found.analysis, found.plan)
        graphprune.verify(found.analysis, pruned, found.plan)
        return pruned


def uniform(model: graphprune.Model, share: float) -> graphprune.Model:
    """Return what uniform widths leave of a model."""
    options = graphprune.SolveOptions(solver="uniform", criterion="l1", round_to=1)
    return graphprune.apply(model, graphprune.solve(model, graphprune.BudgetRequest("flops", share), options))


def main() -> None:
    """Print a line per way."""
    given = parse()
    torch.set_num_threads(1)
    race = Race(given)
    for way in given.ways:
        for recover in given.recover if way not in ("whole", "narrow") else [""]:
            start = cpu_seconds()
            model = race.run(way, recover)
            row = {"way": way, "recover": recover, "epochs": given.epochs, "seed": given.seed}
            after = graphprune.analyze(model)
            row |= {"flops": after.cost.flops(after.cost.sizes), "cpu_s": round(cpu_seconds() - start, 1)}
            print(json.dumps(row | {"top1": graphprune.evaluate(model, race.test).top1}), flush=True)


if __name__ == "__main__":
    main()
