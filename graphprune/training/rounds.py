# SPDX-License-Identifier: Apache-2.0
"""A guarded round: a rate is searched for, the run goes on as long as numbers are finite, and the best weights stay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from graphprune.training.checkpoint import Progress
from graphprune.training.long_run import Clock, Listener, RunFile
from graphprune.training.trainer import Optimisation, Task, Trainer, measure, put, snapshot

__all__ = ["Guard", "best_rate", "search_rate", "train"]

_NEARLY = 0.03
"""Share by which a short run may end above the best one for its higher rate to be preferred."""


@dataclass(frozen=True)
class Guard:
    """How a run is kept from losing what it has.

    Parameters
    ----------
    file : RunFile
        Where everything is saved.
    every : int
        Steps between two checkpoints.
    judge : int
        Steps between two held-out measures; there is one at the end of the run in any case.
    resume : bool
        Go on from the checkpoint.
    last : bool
        Keep the weights of the last step, not the best ones: something else than the loss is wanted of them.
    """

    file: RunFile
    every: int
    judge: int
    resume: bool = False
    last: bool = False


def search_rate(
    task: Task, how: Optimisation, candidates: Sequence[float], steps: int, listen: Listener
) -> dict[float, float]:
    """Return the held-out measure that rates reach in a few steps, all from the same start.

    The second candidate comes first; lower ones follow as long as they do better, and then the highest, if the
    second is still the one to take. The steps are a whole small run each, warm-up and decay included: a large rate
    looks bad halfway and may still end best. The module is left as it was.

    Parameters
    ----------
    candidates : sequence of float
        Rates, the highest first.
    """
    start = snapshot(task.net)
    reached: dict[float, float] = {}
    first = min(1, len(candidates) - 1)
    for rate in candidates[first:]:
        if reached and min(reached.values()) < list(reached.values())[-1]:
            break
        reached[rate] = _tried(task, how, rate, steps, listen)
        put(task.net, start)
    if best_rate(reached) == candidates[first] and first:
        reached[candidates[0]] = _tried(task, how, candidates[0], steps, listen)
        put(task.net, start)
    return reached


def best_rate(reached: Mapping[float, float]) -> float:
    """Return the highest rate whose measure is nearly the best: what looks equal after a few steps gains with more."""
    least = min(reached.values())
    if not math.isfinite(least):
        return min(reached)
    return max(rate for rate, loss in reached.items() if loss <= least + _NEARLY * abs(least))


def _tried(task: Task, how: Optimisation, rate: float, steps: int, listen: Listener) -> float:
    """Return the held-out measure after a small run."""
    trainer = Trainer(task, how, rate, steps)
    clock = Clock(f"search {rate:g}", steps, 0, listen)
    for step, samples in enumerate(task.loader.stream(0, steps)):
        loss = trainer.step(samples, step)
        if not math.isfinite(loss):
            return math.inf
        clock.tick(loss, rate)
    with trainer.judged():
        reached = measure(task)
    clock.judged(reached)
    return reached.loss if math.isfinite(reached.loss) else math.inf


def train(task: Task, how: Optimisation, progress: Progress, total: int, guard: Guard, listen: Listener) -> Progress:
    """Make all steps that are left, and leave the best weights in the module (or the last, as `guard` says).

    Parameters
    ----------
    progress : Progress
        Rate, and the measure at the start; changed in place. With ``guard.resume`` it is replaced by the checkpoint's.
    """
    trainer = Trainer(task, how, progress.rate, total)
    best = snapshot(task.net)
    if guard.resume:
        progress, tensors = guard.file.load(total)
        best = guard.file.restore(trainer, progress, tensors)
    clock = Clock("train", total, progress.step, listen)
    steps = total if not progress.stopped else progress.step
    for samples in task.loader.stream(progress.step, steps):
        loss = trainer.step(samples, progress.step)
        if not math.isfinite(loss):
            progress.stopped = f"the loss of step {progress.step + 1} is not finite"
            break
        progress.step += 1
        clock.tick(loss, trainer.optimizer.param_groups[0]["lr"])
        if progress.step % guard.judge == 0 or progress.step == total:
            best = _judge(trainer, progress, best, clock)
        if progress.step % guard.every == 0 or progress.step == total:
            guard.file.save(trainer, progress, best)
    if not guard.last or progress.stopped:
        put(task.net, best)
    return progress


def _judge(trainer: Trainer, progress: Progress, best: dict[str, Tensor], clock: Clock) -> dict[str, Tensor]:
    """Measure the module; return its weights if they are the best so far, else those that are."""
    with trainer.judged():
        measured = measure(trainer.task)
        clock.judged(measured)
        if measured.loss < progress.best:
            progress.best, progress.best_step = measured.loss, progress.step
            return snapshot(trainer.task.net)
    return best
