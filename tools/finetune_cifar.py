#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune a CIFAR-10 network, recover it by least squares, and let it learn from the original for a while.

    python tools/finetune_cifar.py resnet20_cifar10.onnx cifar10.npz --learn teacher both
    python tools/finetune_cifar.py resnet56_cifar10.onnx cifar10.npz --flops 0.39 --images 50000 --epochs 20 --resume

Pruning and recovery are those of `recover_cifar.py --solver sensitivity --mirror`; training is `graphprune finetune`
with its defaults, on the first training images: `teacher` sees no label, `both` gives labels a tenth of the loss,
`labels` has no teacher. Of these images 1,024 are held out, and they alone choose the learning rate and the weights
that are kept; test labels are looked at for the figures that are printed. With --work everything is saved on the way,
and --resume goes on from there. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from recover_cifar import CALIBRATION, cpu_seconds, source

import graphprune
from graphprune.choices import Precision
from graphprune.cli.training_run import ProgressLine
from graphprune.training.block_hints import find_hints
from graphprune.training.finetune import FinetuneOptions, finetune
from graphprune.verification.pair import plan_beside


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="x_train, y_train, x_test, y_test; images uint8, NHWC")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--learn", choices=["teacher", "both", "labels"], nargs="+", default=["teacher"])
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--rate", type=float, help="instead of the one that is searched for")
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="no", help="bf16 where the processor has it"
    )
    parser.add_argument("--augment", default="flip,crop", help="as of `graphprune finetune`")
    parser.add_argument("--outputs-only", action="store_true", help="do not learn what blocks of the original give")
    parser.add_argument("--work", type=Path, default=Path("finetune_cifar"), help="folder for models and checkpoints")
    parser.add_argument("--start", type=Path, help="a pruned network to go on from, as an earlier run left it")
    parser.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    return parser.parse_args()


def main() -> None:
    """Print one line per result."""
    options = parse()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    data = np.load(options.data)
    dense = graphprune.load(options.model)
    test = source(dense, data["x_test"], data["y_test"].astype(np.int64))
    start = begin(options, dense, data["x_train"], test)
    plan = None if options.outputs_only else plan_beside(start)
    hints = () if plan is None else find_hints(graphprune.analyze(dense), plan, start)
    images, labels = data["x_train"][: options.images], data["y_train"][: options.images].astype(np.int64)
    for way in options.learn:
        name = f"{options.model.stem}-{options.flops:g}-{way}"
        checkpoint = options.work / f"{name}.safetensors"
        settings = FinetuneOptions(
            options.epochs,
            rate=options.rate,
            precision=options.precision,
            augment=options.augment,
            checkpoint=checkpoint,
            resume=options.resume and checkpoint.exists(),
        )
        before = cpu_seconds()
        samples = source(dense, images, None if way == "teacher" else labels)
        with ProgressLine() as meter:
            teacher = None if way == "labels" else dense
            found = finetune(start, samples, teacher, settings, meter.listen, hints=hints)
        row = {
            "learns_from": way,
            "top1": graphprune.evaluate(found.model, test).top1,
            "held_out_loss": [round(found.before.loss, 4), round(found.after.loss, 4)],
            "searched": {f"{rate:g}": round(loss, 4) for rate, loss in found.searched.items()},
            "rate": found.rate,
            "steps": found.steps,
            "epochs": options.epochs,
            "precision": options.precision,
            "augment": options.augment,
            "hints": found.facts["hints"],
            "cpu_s": round(cpu_seconds() - before),
        }
        print(json.dumps(row), flush=True)
        graphprune.save(found.model, options.work / f"{name}.onnx", force=True)


def begin(
    options: argparse.Namespace, dense: graphprune.Model, images: np.ndarray, test: graphprune.Source
) -> graphprune.Model:
    """Return the pruned network, recovered by least squares at the widths that sensitivity chose."""
    path = options.work / f"{options.model.stem}-{options.flops:g}-recovered.onnx"
    before, share = cpu_seconds(), options.flops
    if options.start is not None or (options.resume and path.exists()):
        recovered = graphprune.load(options.start or path)
        share = flops(recovered) / flops(dense)
    else:
        seen = images[:CALIBRATION]
        choices = graphprune.SolveOptions(solver="sensitivity", criterion="l1", round_to=1)
        analysis, wanted = graphprune.analyze(dense), graphprune.BudgetRequest("flops", options.flops)
        plan = graphprune.solve(analysis, wanted, choices, data=source(dense, seen))
        both = source(dense, np.concatenate([seen, seen[:, :, ::-1]]))
        how = graphprune.RecoverOptions(samples=len(both))
        recovered = graphprune.recover(analysis, graphprune.apply(analysis, plan), plan, both, how).model
        share = plan.budget.after / plan.budget.before
        graphprune.save(recovered, path, force=True)
        graphprune.write_plan(plan, path.with_suffix(".plan.json"), force=True)
        recovered = graphprune.load(path)
    row = {"model": options.model.stem, "dense": graphprune.evaluate(dense, test).top1, "flops": round(share, 4)}
    row |= {"recovered": graphprune.evaluate(recovered, test).top1, "cpu_s": round(cpu_seconds() - before)}
    print(json.dumps(row), flush=True)
    return recovered


def flops(model: graphprune.Model) -> int:
    """Return the FLOPs of a model."""
    analysis = graphprune.analyze(model)
    return analysis.cost.flops(analysis.cost.sizes)


if __name__ == "__main__":
    main()
