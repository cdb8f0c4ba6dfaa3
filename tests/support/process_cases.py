# SPDX-License-Identifier: Apache-2.0
"""Runs of training that tests do in their own process and in child processes: both must come to the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from pruning_cases import KINDS, QUICK, labelled
from training_cases import Arrays, images, loaded, normalised, pruned

import graphprune
from graphprune.data.source import Source
from graphprune.solvers.training.cac import Cac
from graphprune.training.finetune import FinetuneOptions, finetune
from graphprune.training.pruning.train import TrainOptions
from graphprune.training.trainer import Optimisation

__all__ = ["NEVER", "finetune_run", "train_run"]

NEVER = 10**6


def finetune_run(place: Path, die_at: int = NEVER, *, resume: bool = False) -> None:
    """Finetune in twelve steps with checkpoints in a folder, or be killed in one of them; write `out.onnx`."""
    steps = 0

    def loss(outputs: Any, teacher: Any, labels: Any) -> torch.Tensor:
        nonlocal steps
        steps += outputs["scores"].requires_grad
        if steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        difference: torch.Tensor = outputs["scores"] - teacher["scores"]
        return difference.square().mean()

    place.mkdir(exist_ok=True)
    original = loaded(normalised())
    data = Source.whole("noise", Arrays({"image": images(160)}))
    options = FinetuneOptions(
        epochs=3,
        batch=32,
        rate=0.01,
        augment="flip,crop",
        device="cpu",
        held_out=32,
        loss=loss,
        optimisation=Optimisation("adamw", ema=0.8),
        checkpoint=place / "state",
        checkpoint_every=2,
        resume=resume,
    )
    result = finetune(pruned(original), data, original, options)
    assert result.improved, result
    assert result.steps == 12, result
    if result.main:
        graphprune.save(result.model, place / "out.onnx", force=True)


def train_run(target: Path) -> None:
    """Prune a network while it trains; write the model."""
    solving = graphprune.SolveOptions(solver="global", round_to=1)
    budget = graphprune.BudgetRequest("flops", 0.6)
    model = graphprune.load(KINDS["folded"]())
    trained = graphprune.train(model, labelled(), budget, Cac(estimator="first-order"), TrainOptions(QUICK, solving))
    if trained.main:
        graphprune.save(trained.model, target)
