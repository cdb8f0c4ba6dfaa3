# SPDX-License-Identifier: Apache-2.0
"""Finetuning: a pruned file learns from the original, or from labels, and is kept only if that helped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from graphprune.analysis.analysis import Analysis
from graphprune.data.source import Source
from graphprune.model.load import Model
from graphprune.surgery.marks import FINETUNED, VERIFIED, put_marks
from graphprune.training.block_hints import BlockHints, Hint
from graphprune.training.bridge import to_onnx
from graphprune.training.check_bridge import check_written
from graphprune.training.checkpoint import Progress
from graphprune.training.device_memory import enough_memory
from graphprune.training.finetune_options import FinetuneOptions
from graphprune.training.loader import Samples
from graphprune.training.long_run import DEFAULT_RATES, Listener, RunFile, ignore_report, run_digest
from graphprune.training.preparation import check_gradients, prepare
from graphprune.training.pruning.regularize import Regularizer
from graphprune.training.rounds import Guard, best_rate, search_rate, train
from graphprune.training.trainer import Measure, Task, measure

__all__ = ["FinetuneOptions", "Finetuned", "finetune"]

_ROUNDING = 1e-4
"""Share of the held-out loss that a change must exceed to count."""
_LEAST = 1e-6
"""What it must exceed in any case: so much do losses of equal outputs differ from zero."""
_RATES = {
    "sgd": (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001),
    "adamw": (0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003, 0.00001),
}
_SEARCH_SHARE = 0.1
_SEARCH_STEPS = (8, 40)


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What came of a finetune round.

    Attributes
    ----------
    model : Model
        The finetuned model if that helped, else the one that was given.
    improved : bool
        Whether it helped: whether the held-out measure is lower than at the start. With a regulariser it is kept in
        any case, since small weights are wanted, not a small loss.
    before, after : Measure
        On the held-out samples, at the start and with the weights that were kept.
    rate : float
    searched : dict of float to float
        Held-out loss that each candidate rate reached in the search.
    steps, best_step : int
        Steps made, and after which of them the weights were best.
    stopped : str
        Why the run ended early; empty if it did not.
    facts : dict of str to object
        What was chosen: losses, unfolded layers, samples.
    main : bool
        Whether this is the process that writes.
    """

    model: Model
    improved: bool
    before: Measure
    after: Measure
    rate: float
    searched: dict[float, float]
    steps: int
    best_step: int
    stopped: str
    facts: dict[str, object]
    main: bool = True


@enough_memory()
def finetune(
    model: Model,
    data: Source,
    teacher: Model | None = None,
    options: FinetuneOptions | None = None,
    listen: Listener = ignore_report,
    judges: Source | None = None,
    hints: Sequence[Hint] = (),
) -> Finetuned:
    """Train a model's weights on data, judged on samples that are held out.

    Parameters
    ----------
    model : Model
        The pruned model. Not changed.
    data : Source
        Samples, with labels or without.
    teacher : Model, optional
        The original, whose outputs are learned. Without it the data needs labels.
    options : FinetuneOptions, optional
    listen : callable, optional
        Is told how far the run is.
    judges : Source, optional
        Samples that judge and are not trained on; by default a part of the data is held out for that.
    hints : sequence of Hint, optional
        Values inside the teacher that are learned, too; not under a regulariser or a loss of your own.

    Returns
    -------
    Finetuned

    Raises
    ------
    UnsupportedModelError
        If a model cannot be converted for training, before anything is trained.
    UsageError
        If the data does not fit the options, or the device has too little memory.
    """
    options = options or FinetuneOptions()
    task, before, facts = prepare(model, data, teacher, options, judges)
    total = max(1, round(options.epochs * task.loader.steps))
    check_gradients(task)
    task = _hinted(_regularized(task, model, options), hints, options)
    facts["hints"] = task.hook.hinted if isinstance(task.hook, BlockHints) else 0
    now = measure(task).loss
    if not task.accelerator.is_main_process:
        listen = ignore_report
    progress = Progress(0, options.rate or 0.0, before.loss, now)
    guard = Guard(
        RunFile(options.checkpoint, run_digest(options, model, teacher, data, _further(judges, hints)), len(hints)),
        options.checkpoint_every,
        max(1, min(task.loader.steps, total)),
        options.resume,
        last=bool(options.regularize),
    )
    if options.regularize:
        progress.rate = progress.rate or DEFAULT_RATES[options.optimisation.optimizer]
    elif options.rate is None and not options.resume:
        steps = int(min(max(_SEARCH_STEPS[0], _SEARCH_SHARE * total), _SEARCH_STEPS[1], total))
        reached = search_rate(task, options.optimisation, _RATES[options.optimisation.optimizer], steps, listen)
        progress.searched = {str(rate): loss for rate, loss in reached.items()}
        progress.rate = best_rate(reached)
    progress = train(task, options.optimisation, progress, total, guard, listen)
    if guard.last and not progress.stopped:
        progress.best_step, improved = progress.step, True
    else:
        improved = lower(progress.best, progress.start)
    after = measure(task) if improved else before
    result = _finish(task, model) if improved else model
    return Finetuned(
        result,
        improved,
        before,
        after,
        progress.rate,
        {float(rate): loss for rate, loss in progress.searched.items()},
        progress.step,
        progress.best_step,
        progress.stopped,
        facts,
        bool(task.accelerator.is_main_process),
    )


def _further(judges: Source | None, hints: Sequence[Hint]) -> dict[str, object]:
    """Return what a run depends on beside the rest, for its digest."""
    further: dict[str, object] = {} if judges is None else {"judges": [judges.name, len(judges)]}
    return further | ({"hints": [hint.name for hint in hints]} if hints else {})


def _regularized(task: Task, model: Model, options: FinetuneOptions) -> Task:
    """Return the task with a regulariser, if one is wanted."""
    if not options.regularize:
        return task
    hook = Regularizer(task.net, Analysis(model), options.regularize, options.strength)
    return replace(task, hook=hook)


def _hinted(task: Task, hints: Sequence[Hint], options: FinetuneOptions) -> Task:
    """Return the task with hints, if there are some and someone who gives them."""
    if not hints or task.teacher is None or options.regularize or options.loss is not None:
        return task
    return replace(task, hook=BlockHints(task, hints))


def _finish(task: Task, model: Model) -> Model:
    """Write the weights back, and run the written model against the module."""
    net = task.net
    task.accelerator.unwrap_model(net.module, keep_fp32_wrapper=False)
    net.module.to("cpu").eval()
    written = to_onnx(net)
    index = torch.arange(min(len(task.held_out), 32)).numpy()
    check_written(net, written, Samples.of(task.held_out.read(index)))
    if written is not net.model:
        put_marks(written.proto, {FINETUNED: _teachers(task), VERIFIED: "no (weights finetuned)"})
    return written


def _teachers(task: Task) -> str:
    """Say what was learned from."""
    teachers = [name for name, there in (("original", task.teacher), ("labels", task.objective.labelled)) if there]
    return " and ".join(teachers) or "own loss"


def lower(loss: float, start: float) -> bool:
    """Whether a held-out loss is lower than at the start by more than rounding."""
    return loss < start - _ROUNDING * abs(start) - _LEAST
