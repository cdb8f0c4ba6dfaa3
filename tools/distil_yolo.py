#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune a YOLOv8 detector, recover it by least squares, and let it learn from the original, all without labels.

    python tools/distil_yolo.py 320n.onnx photographs/ --flops 0.7
    python tools/distil_yolo.py 320n.onnx photographs/ --flops 0.7 --alone

320n.onnx is the detector of the PyPI package nudenet. Every other photograph, in the order of their names, is learned
from, and the rest are what is evaluated. Boxes and scores of classes lie in one output, in very different units; the
error of each is the squared difference from the original's, relative to how far the original's values vary from
photograph to photograph. Their mean is the loss, too. With --alone nothing is learned from any of
them: the pruned network is recovered from the file alone, as `graphprune solve` does. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from recover_cifar import cpu_seconds
from torch import Tensor

import graphprune
from graphprune.api import AnalyzeOptions
from graphprune.cli.training_run import ProgressLine
from graphprune.recovery.without_data import automatic_restorer
from graphprune.training.finetune import FinetuneOptions, finetune

BOXES = 4


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs")
    parser.add_argument("--flops", type=float, default=0.7)
    parser.add_argument("--size", type=int, default=128, help="height and width to which photographs are brought")
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--alone", action="store_true", help="recover from the file alone, with no photograph")
    parser.add_argument("--save", type=Path, help="folder for the models")
    return parser.parse_args()


def main() -> None:
    """Print one line per network."""
    options = parse()
    torch.set_num_threads(1)
    dense = graphprune.load(options.model)
    (name,) = (value.name for value in dense.proto.graph.input)
    photographs = graphprune.open_data(
        options.photographs, dense, graphprune.Preprocessing(size=(options.size, options.size))
    )
    learned, test = (photographs.subset(np.arange(first, len(photographs), 2)) for first in (0, 1))
    analysis = graphprune.analyze(dense, AnalyzeOptions({name: (1, 3, options.size, options.size)}))
    choices = graphprune.SolveOptions(solver="uniform", criterion="l1", round_to=4)
    wanted = outputs(dense, test)

    def show(step: str, model: graphprune.Model, **facts: object) -> None:
        found = outputs(model, test)
        errors = [round(float(relative_error(found[:, part], wanted[:, part])), 4) for part in _parts()]
        print(json.dumps({"network": step, **facts, "boxes": errors[0], "scores": errors[1]}), flush=True)

    if options.alone:
        recover_alone(options, analysis, choices, show)
        return
    settings = FinetuneOptions(options.epochs, batch=32, loss=loss, augment="flip", held_out=32, unfold=False)
    distil(options, analysis, choices, learned, settings, show)


def distil(
    options: argparse.Namespace,
    analysis: graphprune.Analysis,
    choices: graphprune.SolveOptions,
    learned: graphprune.Source,
    settings: FinetuneOptions,
    show: Callable[..., None],
) -> None:
    """Prune, recover and finetune a network.

    Parameters
    ----------
    options : argparse.Namespace
        ``flops``, ``model``, ``save``.
    show : callable
        Is given the name of each step, its model and what else is known of it.
    """
    start = cpu_seconds()
    budget = graphprune.BudgetRequest("flops", options.flops)
    plan = graphprune.solve(analysis, budget, choices, data=learned)
    pruned = graphprune.apply(analysis, plan)
    flops = round(plan.budget.after / plan.budget.before, 4)
    found = {"pruned": pruned}
    show("pruned", pruned, flops=flops, cpu_s=round(cpu_seconds() - start))

    start = cpu_seconds()
    recovery = graphprune.recover(analysis, pruned, plan, learned)
    found["recovered"] = recovery.model
    show("least squares", recovery.model, cpu_s=round(cpu_seconds() - start))

    start = cpu_seconds()
    with ProgressLine() as meter:
        tuned = finetune(recovery.model, learned, analysis.model, settings, meter.listen)
    found["distilled"] = tuned.model
    facts = {"rate": tuned.rate, "searched": tuned.searched, "steps": tuned.steps, "kept": tuned.improved}
    loss = [round(tuned.before.loss, 4), round(tuned.after.loss, 4)]
    show("distilled", tuned.model, **facts, held_out_loss=loss, cpu_s=round(cpu_seconds() - start))
    for step, model in found.items() if options.save else ():
        graphprune.save(model, options.save / f"{options.model.stem}-{options.flops:g}-{step}.onnx", force=True)


def recover_alone(
    options: argparse.Namespace,
    analysis: graphprune.Analysis,
    choices: graphprune.SolveOptions,
    show: Callable[..., None],
) -> None:
    """Prune a network, and recover it from its file alone."""
    plan = graphprune.solve(analysis, graphprune.BudgetRequest("flops", options.flops), choices)
    pruned = graphprune.apply(analysis, plan)
    show("pruned", pruned, flops=round(plan.budget.after / plan.budget.before, 4))
    start = cpu_seconds()
    restorer, why = automatic_restorer(analysis, choices.seed)
    if restorer is None:
        raise SystemExit(why)
    recovery = restorer.recover(plan, pruned)
    facts = {"kept": recovery.improved, "on_made_samples": [recovery.before, recovery.after], **restorer.facts}
    show("without data", recovery.model, **facts, cpu_s=round(cpu_seconds() - start))


def loss(own: Mapping[str, Tensor], other: Mapping[str, Tensor] | None, labels: Tensor | None) -> Tensor:
    """Return the mean of the errors of boxes and scores; outputs have shape (n, 4 + classes, cells)."""
    del labels
    if other is None:
        raise SystemExit("this loss needs the original network")
    ((name, value),) = own.items()
    return torch.stack([relative_error(value[:, part], other[name][:, part]) for part in _parts()]).mean()


def _parts() -> tuple[slice, slice]:
    return slice(None, BOXES), slice(BOXES, None)


def relative_error(own: Tensor, other: Tensor) -> Tensor:
    """Return the squared error, relative to how far the values vary from sample to sample."""
    return (own - other).square().mean() / (other - other.mean(0)).square().mean()


def outputs(model: graphprune.Model, data: graphprune.Source) -> Tensor:
    """Return the output for all samples."""
    session = ort.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(np.concatenate([session.run(None, dict(batch.feeds))[0] for batch in data.batches(25)]))


if __name__ == "__main__":
    main()
