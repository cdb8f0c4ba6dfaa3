# SPDX-License-Identifier: Apache-2.0
"""What processes of their own do in the tests of training (`forked_runs`)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pruning_cases import KINDS, QUICK, labelled
from torch import Tensor
from training_cases import Arrays, images, loaded, normalised

import graphprune
from graphprune.cli import main
from graphprune.data.source import Source
from graphprune.model.load import Model
from graphprune.solvers.training.cac import Cac
from graphprune.training.finetune import FinetuneOptions, finetune
from graphprune.training.pruning.train import TrainOptions
from graphprune.training.trainer import Optimisation

__all__ = ["NEVER", "STEPS", "command", "finetuning", "launching", "pruned", "pruning"]

NEVER = 10**6
STEPS = 12


def pruned(model: Model) -> Model:
    """Return half of a model."""
    plan = graphprune.solve(model, graphprune.BudgetRequest("flops", 0.5), graphprune.SolveOptions(round_to=1))
    return graphprune.apply(model, plan)


def finetuning(place: Path, die_at: int = NEVER, resume: bool = False) -> None:
    """Finetune `STEPS` steps, and write ``out.onnx``; the process is killed in one of them."""
    steps = 0

    def loss(outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor], labels: Tensor | None) -> Tensor:
        nonlocal steps
        steps += outputs["scores"].requires_grad
        if steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return (outputs["scores"] - teacher["scores"]).square().mean()

    original = loaded(normalised())
    data = Source.whole("noise", Arrays({"image": images(160)}))
    options = FinetuneOptions(
        epochs=3,
        batch=32,
        rate=0.01,
        augment="flip,crop",
        device="cpu",
        held_out=32,
        loss=loss,  # type: ignore[arg-type]
        optimisation=Optimisation("adamw", ema=0.8),
        checkpoint=place / "state",
        checkpoint_every=2,
        resume=resume,
    )
    finetuned = finetune(pruned(original), data, original, options)
    assert finetuned.improved
    assert finetuned.steps == STEPS, finetuned
    if finetuned.main:
        graphprune.save(finetuned.model, place / "out.onnx", force=True)


def pruning(target: Path) -> None:
    """Prune while training, and write the trained model and the plan."""
    solving = graphprune.SolveOptions(solver="global", round_to=1)
    budget = graphprune.BudgetRequest("flops", 0.6)
    model = graphprune.load(KINDS["folded"]())
    outcome = graphprune.train(
        model, labelled(), budget, Cac(estimator="first-order"), TrainOptions(replace(QUICK, epochs=3), solving)
    )
    if outcome.main:
        graphprune.save(outcome.model, target)
        graphprune.write_plan(outcome.plan, target.with_suffix(".json"))


def command(folder: Path, *arguments: str) -> None:
    """Run the command line in a folder."""
    os.chdir(folder)
    sys.exit(main(arguments))


def launching(folder: Path, *arguments: str) -> None:
    """Run ``accelerate launch`` in a folder."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    os.chdir(folder)
    launch_command(launch_command_parser().parse_args(arguments))
