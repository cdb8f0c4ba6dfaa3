# SPDX-License-Identifier: Apache-2.0
"""Finetuning: a pruned file learns from the original, or from labels, and is kept only if that helped."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from graphprune.calibrate.source import Source
from graphprune.errors import UsageError, quote
from graphprune.model.load import Model
from graphprune.surgery.marks import FINETUNED, VERIFIED, put_marks
from graphprune.training.augment import channels_last, parse_augmentation
from graphprune.training.bridge import Trainable, to_onnx, to_torch
from graphprune.training.checkpoint import Progress
from graphprune.training.fidelity import check_converted, check_written
from graphprune.training.loader import Loader, Samples
from graphprune.training.losses import Kind, LossFunction, Objective, choose_kinds, is_probability
from graphprune.training.rounds import Guard, Listener, Report, best_rate, search_rate, train
from graphprune.training.trainer import Measure, Optimisation, Task, measure, put, snapshot
from graphprune.training.unfold import normalisations, reestimate, settle

__all__ = ["FinetuneOptions", "Finetuned", "finetune"]

_ROUNDING = 1e-4
"""Share of the held-out loss that a change must exceed to count."""
_CALIBRATION = 512
"""Samples from which unfolded BatchNormalizations take their statistics."""
_RATES = {
    "sgd": (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001),
    "adamw": (0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003, 0.00001),
}
_SEARCH_SHARE = 0.1
_SEARCH_STEPS = (8, 40)


@dataclass(frozen=True)
class FinetuneOptions:
    """How a model is finetuned.

    Parameters
    ----------
    epochs : float
        Passes over the data.
    batch : int
        Samples of a step, over all processes.
    rate : float, optional
        The highest learning rate; by default the best of a few that are tried.
    optimisation : Optimisation
    label_weight : float, optional
        Share of the labels in the loss: by default 0.1 with a teacher, all of it without.
    temperature, smoothing : float
        Of distillation, and of labels.
    kinds : mapping of str to {"kl", "mse", "cosine", "none"}
        How outputs are compared, where the default does not fit.
    loss : callable, optional
        Your own loss (`losses.LossFunction`).
    augment : str
        ``auto``, ``none``, or as in `augment.parse_augmentation`.
    held_out : int, optional
        Samples that judge and are not trained on: by default a tenth, 1,024 at most.
    unfold : bool, optional
        Put BatchNormalization back where it was folded: by default, where the model has none at all.
    device : str
        ``auto`` or ``cpu``.
    precision : {"no", "fp16", "bf16"}
    checkpoint : Path, optional
        Where to save the state of the run; ``resume`` goes on from there.
    checkpoint_every : int
        Steps between two checkpoints.
    seed : int
    """

    epochs: float = 2.0
    batch: int = 128
    rate: float | None = None
    optimisation: Optimisation = field(default_factory=Optimisation)
    label_weight: float | None = None
    temperature: float = 4.0
    smoothing: float = 0.0
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    loss: LossFunction | None = None
    augment: str = "auto"
    held_out: int | None = None
    unfold: bool | None = None
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint: Path | None = None
    checkpoint_every: int = 200
    resume: bool = False
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Finetuned:
    """What came of a finetune round.

    Attributes
    ----------
    model : Model
        The finetuned model if that helped, else the one that was given.
    improved : bool
        Whether it helped: whether the held-out measure is lower than at the start.
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


def _deaf(report: Report) -> None:
    """Say nothing: one process speaks for all."""


def finetune(
    model: Model,
    data: Source,
    teacher: Model | None = None,
    options: FinetuneOptions | None = None,
    listen: Listener = _deaf,
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

    Returns
    -------
    Finetuned

    Raises
    ------
    UnsupportedModelError
        If a model cannot be converted for training, before anything is trained.
    UsageError
        If the data does not fit the options.
    """
    options = options or FinetuneOptions()
    task, before, facts = _prepare(model, data, teacher, options)
    total = max(1, round(options.epochs * task.loader.steps))
    _check_gradients(task)
    now = measure(task).loss
    if not task.accelerator.is_main_process:
        listen = _deaf
    progress = Progress(0, options.rate or 0.0, before.loss, now)
    guard = Guard(
        options.checkpoint,
        _digest(model, teacher, data, options),
        options.checkpoint_every,
        max(1, min(task.loader.steps, total)),
        options.resume,
    )
    if options.rate is None and not options.resume:
        steps = int(min(max(_SEARCH_STEPS[0], _SEARCH_SHARE * total), _SEARCH_STEPS[1], total))
        found = search_rate(task, options.optimisation, _RATES[options.optimisation.optimizer], steps, listen)
        progress.searched = {str(rate): loss for rate, loss in found.items()}
        progress.rate = best_rate(found)
    progress = train(task, options.optimisation, progress, total, guard, listen)
    improved = progress.best < progress.start - _ROUNDING * (abs(progress.start) + _ROUNDING)
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


def _prepare(
    model: Model, data: Source, teacher: Model | None, options: FinetuneOptions
) -> tuple[Task, Measure, dict[str, object]]:
    """Convert the models, check the conversion, and put together everything that training needs."""
    from accelerate import Accelerator

    if teacher is None and options.loss is None and not data.labelled:
        raise UsageError(
            f"the data {quote(data.name)} has no labels, so there is nothing to learn from",
            hint="give the original model with --teacher",
        )
    count = options.held_out or min(1024, max(1, len(data) // 10))
    rest, held_out = data.split(count)
    first = Samples.of(held_out.read(torch.arange(min(len(held_out), 32)).numpy()))
    net = _convert(model, options.unfold, first)
    other = to_torch(teacher) if teacher is not None else None
    if other is not None and teacher is not None:
        check_converted(other, teacher, first)
        _match(net, other)
    accelerator = Accelerator(cpu=options.device == "cpu", mixed_precision=options.precision)
    shape = _image_shape(first)
    text = _augmentation(options.augment, first) if options.augment == "auto" else options.augment
    loader = Loader(
        rest,
        options.batch,
        parse_augmentation(text, shape, options.seed),
        options.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    objective = _objective(net, other, first, data.labelled, options)
    for converted in (net, other):
        if converted is not None:
            converted.module.to(accelerator.device)
    task = Task(net, other, objective, loader, held_out, accelerator, options.seed)
    before, facts = _normalise(task, rest)
    facts |= {
        "losses": {"own": True} if options.loss else dict(objective.kinds) if other is not None else {},
        "labels": objective.labelled if objective.label_weight else None,
        "samples": len(rest),
        "held_out": len(held_out),
        "augment": text or "none",
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
    }
    return task, before, facts


def _convert(model: Model, unfold: bool | None, first: Samples) -> Trainable:
    """Convert the student; the converter is young, so its result is held against onnxruntime."""
    if unfold is None:
        unfold = all(node.op_type != "BatchNormalization" for node in model.proto.graph.node)
    net = to_torch(model, unfold=unfold)
    check_converted(net, model, first)
    return net


def _match(net: Trainable, teacher: Trainable) -> None:
    """Refuse a teacher whose inputs or outputs are not those of the student."""
    if set(net.inputs) != set(teacher.inputs) or not set(net.outputs) <= set(teacher.outputs):
        raise UsageError(
            f"the teacher has inputs {quote(list(teacher.inputs))} and outputs {quote(list(teacher.outputs))}, the "
            f"pruned model {quote(list(net.inputs))} and {quote(list(net.outputs))}",
            hint="give the model that was pruned as the teacher",
        )


def _augmentation(text: str, first: Samples) -> str:
    """Choose the augmentation: flips and crops of pictures, nothing for other data."""
    images = [value for value in first.feeds.values() if value.dim() == 4 and value.is_floating_point()]
    pictures = len(images) == len(first.feeds) == 1 and _image_shape(first)[0] in (1, 3)
    return "flip,crop" if pictures else ""


def _image_shape(first: Samples) -> tuple[int, ...]:
    """Return (channels, height, width) of the images among the inputs; empty where there are none."""
    shapes = [tuple(value.shape) for value in first.feeds.values() if value.dim() == 4]
    if not shapes:
        return ()
    _, *rest = shapes[0]
    return (rest[2], rest[0], rest[1]) if channels_last(shapes[0]) else tuple(rest)


@torch.no_grad()
def _objective(
    net: Trainable, teacher: Trainable | None, first: Samples, labelled: bool, options: FinetuneOptions
) -> Objective:
    outputs = net.run(first.feeds)
    ranks = {name: value.dim() for name, value in outputs.items() if value.is_floating_point()}
    kinds = choose_kinds(net.graph, ranks, options.kinds)
    scores = next((name for name, kind in kinds.items() if kind == "kl"), None)
    if labelled and options.loss is None and scores is None and teacher is None:
        raise UsageError("no output of the model holds scores of classes", hint="give your own loss with --loss")
    weight = options.label_weight if options.label_weight is not None else (0.1 if teacher is not None else 1.0)
    objective = Objective(
        kinds,
        scores if labelled else None,
        weight,
        options.temperature,
        options.smoothing,
        frozenset(name for name in ranks if is_probability(net.graph, name)),
        options.loss,
    )
    if teacher is not None:
        objective.observe(teacher.run(first.feeds))
    return objective


def _normalise(task: Task, data: Source) -> tuple[Measure, dict[str, object]]:
    """Let all BatchNormalizations have statistics that hold in training mode, too; every process does the same.

    A recovered network keeps its function, and new statistics are made to fit it. Where the new ones alone do
    better on held-out samples, there was nothing to keep. Returned are the measure of the file as it is, and what
    was done.
    """

    def batches() -> Iterator[Mapping[str, torch.Tensor]]:
        for batch in data.limited(_CALIBRATION).batches(64):
            yield Samples.of(batch).to(task.device).feeds

    net = task.net
    before, start = measure(task), snapshot(net)
    with task.on_device():
        changed = reestimate(net, batches) if any(True for _ in normalisations(net)) else 0
        better = changed > 0 and measure(task).loss < before.loss
        if not better:
            put(net, start)
            return before, {"unfolded": settle(net, batches), "normalisation": "kept" if changed else "none"}
    return before, {"unfolded": 0, "normalisation": "re-estimated"}


def _check_gradients(task: Task) -> None:
    """Try one step without making it: parameters that get no gradient are left out, and if none does it is said.

    Raises
    ------
    UsageError
        If the loss does not depend on any weight.
    """
    size = min(len(task.loader.source), 2)
    samples = Samples.of(task.loader.source.read(torch.arange(size).numpy())).to(task.device)
    target = task.teach(samples)
    task.net.module.eval()
    with task.on_device():
        loss: object = task.objective(task.net.run(samples.feeds), target, samples.labels)
    if not isinstance(loss, torch.Tensor) or loss.dim() or not loss.requires_grad:
        raise UsageError("the loss is no scalar tensor that depends on the weights of the model")
    loss.backward()  # type: ignore[no-untyped-call]
    for value in task.net.module.parameters():
        value.requires_grad_(value.grad is not None)
        value.grad = None


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
    found = [name for name, there in (("original", task.teacher), ("labels", task.objective.labelled)) if there]
    return " and ".join(found) or "own loss"


def _digest(model: Model, teacher: Model | None, data: Source, options: FinetuneOptions) -> str:
    """Return a digest of everything that the course of a run depends on."""
    said: dict[str, Any] = asdict(options)
    for name in ("checkpoint", "checkpoint_every", "resume"):
        said.pop(name)
    loss = said.pop("loss")
    said |= {"loss": getattr(loss, "__qualname__", None), "model": model.sha256, "data": [data.name, len(data)]}
    said["teacher"] = teacher.sha256 if teacher is not None else None
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def improvement(result: Finetuned) -> float:
    """Return by which share the held-out loss fell."""
    return 1.0 - result.after.loss / result.before.loss if math.isfinite(result.before.loss) else 0.0
