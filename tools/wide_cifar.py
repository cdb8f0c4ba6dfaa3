#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train wide and squeeze, or double the channels and prune half, against the narrow network trained as long.

    python tools/wide_cifar.py resnet20_cifar10.onnx cifar10.npz --narrow 0.06 --epochs 4 --images 10000

The narrow network is what uniform widths leave of the given one at a share of its FLOPs; the wide one is that, widened
by 2. Weights of both are drawn anew, so everything is trained from scratch, by the loop of `graphprune train`. The
archive is that of tools/train_cifar.py. One line each: the narrow network; wide-then-squeeze (half of the epochs wide,
half by csgd); and DCPH (all epochs by cac). All end at the cost of the narrow network. For csgd, the trained network
whose channels are tied is judged beside the merged one.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto, numpy_helper
from train_cifar import cpu_seconds, source

import graphprune
from graphprune.solvers import training
from graphprune.training.finetune import finetune
from graphprune.training.finetune_options import FinetuneOptions
from graphprune.training.pruning.train import TrainOptions

_NORMALISED = {1: 1.0, 2: 0.0, 3: 0.0, 4: 1.0}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--narrow", type=float, default=0.06)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="*", default=["narrow", "csgd", "cac"])
    return parser.parse_args()


class Race:
    """Networks from scratch, and the ways to train them."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        data = np.load(given.data)
        whole = graphprune.analyze(graphprune.load(given.model))
        solving = graphprune.SolveOptions(solver="uniform", criterion="l1", round_to=1)
        plan = graphprune.solve(whole, graphprune.BudgetRequest("flops", given.narrow), solving)
        self.narrow = fresh(graphprune.apply(whole, plan), given.seed)
        self.wide = fresh(graphprune.widen(self.narrow).model, given.seed)
        analysis = graphprune.analyze(self.narrow)
        self.cost = analysis.cost.flops(analysis.cost.sizes)
        labels = data["y_train"][: given.images].astype(np.int64)
        self.train = source(self.narrow, data["x_train"][: given.images], labels)
        self.test = source(self.narrow, data["x_test"], data["y_test"].astype(np.int64))

    def how(self, epochs: float) -> FinetuneOptions:
        """Return how is trained."""
        return FinetuneOptions(epochs=epochs, rate=self.given.rate, device="cpu", seed=self.given.seed, held_out=512)

    def run(self, way: str) -> graphprune.Model:
        """Return the network at the end of a way."""
        epochs = self.given.epochs
        if way == "narrow":
            return finetune(self.narrow, self.train, None, self.how(epochs)).model
        if way == "csgd":
            learned = finetune(self.wide, self.train, None, self.how(epochs / 2)).model
            return self.squeezed(learned, way, epochs / 2)
        return self.squeezed(self.wide, way, epochs)

    def squeezed(self, wide: graphprune.Model, name: str, epochs: float) -> graphprune.Model:
        """Prune while training, to the cost of the narrow network."""
        method = training.get(name)()
        solving = graphprune.SolveOptions(solver=method.solver, round_to=1, seed=self.given.seed)
        budget = graphprune.BudgetRequest("flops", f"{self.cost / 1000}k")
        found = graphprune.train(wide, self.train, budget, method, TrainOptions(self.how(epochs), solving))
        pruned = graphprune.apply(found.analysis, found.plan)
        graphprune.verify(found.analysis, pruned, found.plan)
        for entry in found.plan.solver.trace:
            if "deviation" in entry:
                tied, merged = (graphprune.evaluate(item, self.test).top1 for item in (found.model, pruned))
                print(json.dumps(entry | {"before": found.after.accuracy, "tied": tied, "merged": merged}), flush=True)
        return pruned


def fresh(model: graphprune.Model, seed: int) -> graphprune.Model:
    """Draw all weights of a model anew (He's initialisation, by fan-out)."""
    random = np.random.default_rng(seed)
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    norms = [node for node in proto.graph.node if node.op_type == "BatchNormalization"]
    constant = {node.input[slot]: value for node in norms for slot, value in _NORMALISED.items()}
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name in constant:
            array = np.full_like(array, constant[tensor.name])
        elif array.dtype == np.float32 and array.ndim > 1:
            fan = array.size // array.shape[1] if array.ndim > 2 else array.shape[1]
            array = (random.standard_normal(array.shape) * np.sqrt(2.0 / fan)).astype(np.float32)
        elif array.dtype == np.float32:
            array = np.zeros_like(array)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return graphprune.load(proto)


def main() -> None:
    """Print a line per way."""
    given = parse()
    torch.set_num_threads(1)
    race = Race(given)
    for way in given.ways:
        start, wall = cpu_seconds(), time.perf_counter()
        model = race.run(way)
        spent = {"cpu_s": round(cpu_seconds() - start, 1), "wall_s": round(time.perf_counter() - wall, 1)}
        after = graphprune.analyze(model)
        row = {"way": way, "flops": after.cost.flops(after.cost.sizes), "epochs": given.epochs, "seed": given.seed}
        print(json.dumps(row | spent | {"top1": graphprune.evaluate(model, race.test).top1}), flush=True)


if __name__ == "__main__":
    main()
