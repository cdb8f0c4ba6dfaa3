#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune a network with nothing but its file, as `graphprune solve` does, and print accuracies and processor time.

    python tools/without_data.py examples/digits.onnx examples/digits_test.npz
    python tools/without_data.py resnet20_cifar10.onnx cifar10.npz --flops 0.5
    python tools/without_data.py mobilenet_v2.onnx photographs/ --flops 0.7
    python tools/without_data.py resnet20_cifar10.onnx cifar10.npz --quality fine --recover least-squares blocks

The data is looked at for the accuracies that are printed, and for nothing else: an archive with arrays by input name
and `labels`; one with x_test and y_test (8-bit CIFAR-10 images); or a folder of photographs of 224x224 pixels that are
named after their class, of which, in the order of their names, every second one is evaluated. One thread:
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from recover_cifar import accuracy, cpu_seconds, source

import graphprune
from graphprune.data.synthesis.make_samples import SampleOptions
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.recovery.without_data import Restorer, restorer_for


def test_data(path: Path, model: graphprune.Model) -> graphprune.Source:
    """Return what is evaluated, with labels."""
    if path.is_dir():
        from PIL import Image

        paths = sorted(path.glob("*.jpg"))[1::2]
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in paths])
        return source(model, images, np.array([int(file.stem) for file in paths], np.int64))
    with np.load(path) as data:
        if "x_test" in data:
            return source(model, data["x_test"], data["y_test"].astype(np.int64))
    return graphprune.open_data(str(path), model)


def main() -> None:
    """Print one line per seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--solver", nargs="+", default=["stage-wise"], help="each on the same samples")
    parser.add_argument("--criterion", default="bn-scale")
    parser.add_argument("--round-to", default="1", help="a number of channels, or a rule such as auto")
    parser.add_argument("--count", type=int, help="samples that are used")
    parser.add_argument("--candidates", type=int, default=4, help="samples that are made for each one that is used")
    parser.add_argument("--quality", default="fast", choices=("fast", "fine"), help="fine: refined by gradient")
    parser.add_argument("--recover", nargs="+", default=["least-squares"], help="methods, each at the same widths")
    parser.add_argument("--learn", type=int, metavar="N", help="then distil on so many refined images")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--rate", type=float, help="the best of a few by default")
    parser.add_argument("--save", type=Path, help="folder for the recovered models, and for the one that learned")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    model = graphprune.load(options.model)
    test = test_data(options.data, model)
    print(json.dumps({"model": options.model.stem, **accuracy(model, test)}), flush=True)
    analysis = graphprune.analyze(model)
    for seed in options.seeds:
        start = cpu_seconds()
        wanted = SampleOptions(options.count, options.candidates, seed, quality=options.quality)
        restorer = restorer_for(analysis, wanted)
        prepared = cpu_seconds() - start
        for solver in options.solver:
            for line in pruned_alone(options, restorer, test, solver, prepared):
                print(json.dumps(line), flush=True)


def pruned_alone(
    options: argparse.Namespace, restorer: Restorer, test: graphprune.Source, solver: str, prepared: float
) -> Iterator[dict[str, object]]:
    """Prune and recover from the file alone; give what is printed of each method of recovery."""
    analysis, start = restorer.analysis, cpu_seconds() - prepared
    choices = graphprune.SolveOptions(
        solver=solver,
        criterion=options.criterion,
        round_to=int(options.round_to) if options.round_to.isdigit() else options.round_to,
        seed=restorer.seed,
    )
    budget = graphprune.BudgetRequest("flops", options.flops)
    plan = graphprune.solve(analysis, budget, choices, data=restorer.made.source, dense=restorer.dense)
    pruned = graphprune.apply(analysis, plan)
    solved, before = cpu_seconds() - start, accuracy(pruned, test)["top1"]
    for method in options.recover:
        start = cpu_seconds() - solved
        wanted = RecoverOptions(method=method, samples=len(restorer.made.source), seed=restorer.seed)
        recovery = restorer.recover(plan, pruned, wanted)
        seconds = cpu_seconds() - start
        if options.save:
            name = f"{options.model.stem}-{solver}-{method}.onnx"
            graphprune.save(recovery.model, options.save / name, force=True)
        learned = distilled(options, restorer, plan, recovery.model, test) if options.learn else {}
        yield {
            "flops": round(plan.budget.after / plan.budget.before, 4),
            "solver": solver,
            "recover": method,
            "pruned": before,
            **accuracy(recovery.model, test),
            "improved": recovery.improved,
            "error_on_made_samples": [recovery.before, recovery.after],
            **restorer.facts,
            "cpu_s": [round(part, 1) for part in (prepared, solved, seconds)],
            "widths": [len(group.kept) for group in plan.groups],
            **learned,
        }


def distilled(
    options: argparse.Namespace,
    restorer: Restorer,
    plan: graphprune.Plan,
    recovered: graphprune.Model,
    test: graphprune.Source,
) -> dict[str, object]:
    """Let a recovered network learn from the original on images that are made; return what is printed of it."""
    from graphprune.training.block_hints import find_hints
    from graphprune.training.finetune import FinetuneOptions, finetune
    from graphprune.training.made_training_data import make_training_data

    start, original = cpu_seconds(), restorer.analysis.model
    made = make_training_data(original, SampleOptions(options.learn, options.candidates, restorer.seed))
    settings = made.suited(FinetuneOptions(options.epochs, rate=options.rate, seed=restorer.seed, device="cpu"))
    hints = find_hints(restorer.analysis, plan, recovered)
    tuned = finetune(recovered, made.learned, original, settings, judges=made.judges, hints=hints)
    if options.save:
        graphprune.save(tuned.model, options.save / f"{options.model.stem}-learned.onnx", force=True)
    return {
        "distilled": accuracy(tuned.model, test)["top1"],
        "kept": tuned.improved,
        "loss": [round(tuned.before.loss, 4), round(tuned.after.loss, 4)],
        "rate": tuned.rate,
        "steps": tuned.steps,
        "hints": tuned.facts["hints"],
        **{f"learned_{name}": value for name, value in made.facts.items()},
        "learning_cpu_s": round(cpu_seconds() - start, 1),
    }


if __name__ == "__main__":
    main()
