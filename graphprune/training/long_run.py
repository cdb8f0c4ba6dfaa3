# SPDX-License-Identifier: Apache-2.0
"""What finetuning and pruning while training share: a long run reports, is saved, and is taken up again."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graphprune.errors import InputError, UsageError
from graphprune.training.checkpoint import (
    Progress,
    below,
    checkpoint_errors,
    read_checkpoint,
    take_all,
    write_checkpoint,
)
from graphprune.training.trainer import Measure, Trainer

if TYPE_CHECKING:
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.training.finetune_options import FinetuneOptions

__all__ = ["DEFAULT_RATES", "Clock", "Listener", "Report", "RunFile", "ignore_report", "run_digest"]

DEFAULT_RATES = {"sgd": 0.01, "adamw": 1e-3}
"""The highest learning rate where none is given and none searched for: a low loss after few steps is not what is
wanted under a regulariser, nor of a whole network, which is the best there is at first."""

_EVERY = 0.5
"""Seconds between two reports."""


@dataclass(frozen=True)
class Report:
    """What a run says of itself while it goes on.

    Attributes
    ----------
    stage : str
        ``train``, or ``search`` and the rate that is tried.
    step, total : int
    loss : float
        Of training, a moving mean.
    rate : float
    measure : Measure or None
        The latest on held-out samples.
    seconds_left : float
    """

    stage: str
    step: int
    total: int
    loss: float
    rate: float
    measure: Measure | None
    seconds_left: float


Listener = Callable[[Report], None]


def ignore_report(report: Report) -> None:
    """Say nothing: nobody listens, or another process speaks for all."""


def run_digest(
    options: FinetuneOptions,
    model: Model,
    teacher: Model | None,
    data: Source,
    further: Mapping[str, Any] | None = None,
) -> str:
    """Return a digest of everything that the outcome of a run depends on.

    Parameters
    ----------
    options : FinetuneOptions
    model, teacher : Model
    data : Source
    further : mapping of str to object, optional
        What this kind of run depends on beside.
    """
    said: dict[str, Any] = asdict(options)
    for name in ("checkpoint", "checkpoint_every", "resume"):
        said.pop(name)
    said["loss"] = getattr(said["loss"], "__qualname__", None)
    said |= {"model": model.sha256, "data": [data.name, len(data)]}
    said["teacher"] = teacher.sha256 if teacher is not None else None
    said |= further or {}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class RunFile:
    """Where a run is saved.

    Parameters
    ----------
    path : Path or None
        None for nowhere.
    digest : str
        Of the run, from `run_digest`.
    blocks : int
        How many blocks of the original are learned by what a plan says.
    """

    path: Path | None
    digest: str
    blocks: int = 0

    def save(
        self,
        trainer: Trainer,
        progress: Progress,
        best: Mapping[str, Tensor],
        further: Callable[[], Mapping[str, Tensor]] = dict,
    ) -> None:
        """Save a run, if it is to be saved and this process is the one that writes.

        Parameters
        ----------
        trainer : Trainer
        progress : Progress
            The state of the gradient scaler is added.
        best : mapping of str to Tensor
            The weights to go back to in the end.
        further : callable, optional
            Returns what this kind of run keeps beside.
        """
        if self.path is None or not trainer.task.accelerator.is_main_process:
            return
        tensors = trainer.tensors() | {f"best/{name}": value for name, value in best.items()} | dict(further())
        saved = replace(progress, scaler=trainer.scaler)
        write_checkpoint(self.path, self.digest, saved, tensors, blocks=self.blocks)

    def load(self, total: int) -> tuple[Progress, dict[str, Tensor]]:
        """Return what was saved of a run of so many steps.

        Raises
        ------
        UsageError
            If nothing is saved anywhere, or the checkpoint belongs to another run.
        InputError
            If the checkpoint is missing or damaged.
        """
        path = self._saved()
        progress, tensors = read_checkpoint(path, self.digest, blocks=self.blocks)
        with checkpoint_errors(path):
            if progress.step > total:
                raise InputError(f"{progress.step} steps are done of {total}")
        return progress, tensors

    def restore(self, trainer: Trainer, progress: Progress, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Let a trainer take up what was loaded; return the weights to go back to in the end, if there are any.

        Raises
        ------
        InputError
            If the checkpoint is damaged.
        """
        task = trainer.task
        with self.errors():
            trainer.rate = progress.rate
            trainer.restore(tensors)
            if progress.scaler and task.accelerator.scaler is not None:
                task.accelerator.scaler.load_state_dict(progress.scaler)
            best = below(tensors, "best/")
            best = take_all(best, task.net.changing) if best else {}
        return {name: value.to(task.device) for name, value in best.items()}

    def errors(self) -> AbstractContextManager[None]:
        """Let whatever a damaged checkpoint raises become one error that names the file."""
        return checkpoint_errors(self._saved())

    def _saved(self) -> Path:
        if self.path is None:
            raise UsageError("there is no checkpoint to go on from", hint="give --checkpoint")
        return self.path


class Clock:
    """Tells a listener how far a run is, and when it will be done."""

    def __init__(self, stage: str, total: int, first: int, listen: Listener) -> None:
        self.stage, self.total, self.step, self.first = stage, total, first, first
        self.listen = listen
        self.loss = math.nan
        self.rate = 0.0
        self.measure: Measure | None = None
        self.begun = self.said = time.monotonic()

    def tick(self, loss: float, rate: float) -> None:
        """Count a step."""
        self.step += 1
        self.rate = rate
        self.loss = loss if math.isnan(self.loss) else 0.9 * self.loss + 0.1 * loss
        if time.monotonic() - self.said >= _EVERY:
            self._say()

    def judged(self, measured: Measure) -> None:
        """Take a new measure, and say it."""
        self.measure = measured
        self._say()

    def _say(self) -> None:
        self.said = time.monotonic()
        pace = (self.said - self.begun) / max(1, self.step - self.first)
        left = pace * (self.total - self.step)
        self.listen(Report(self.stage, self.step, self.total, self.loss, self.rate, self.measure, left))
