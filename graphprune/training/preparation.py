# SPDX-License-Identifier: Apache-2.0
"""What comes before the first step: models are converted and checked, data divided, an objective chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from graphprune.choices import Device, Precision
from graphprune.data.providers import wanted
from graphprune.data.signature import batch_size, input_specs
from graphprune.data.source import Source
from graphprune.errors import UsageError, quote
from graphprune.model.load import Model
from graphprune.training.augment import channels_last, parse_augmentation
from graphprune.training.bridge import Trainable, to_torch
from graphprune.training.check_bridge import check_converted
from graphprune.training.finetune_options import FinetuneOptions
from graphprune.training.loader import Loader, Samples
from graphprune.training.losses import Objective, choose_kinds, is_probability
from graphprune.training.trainer import Measure, Task, measure, put, snapshot
from graphprune.training.unfold import normalisations, reestimate, settle

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["calibration", "check_gradients", "prepare"]

_CALIBRATION = 512
"""Samples from which unfolded BatchNormalizations take their statistics."""


def prepare(
    model: Model, data: Source, teacher: Model | None, options: FinetuneOptions, judges: Source | None = None
) -> tuple[Task, Measure, dict[str, object]]:
    """Convert the models, check the conversion, and put together everything that training needs.

    Returns
    -------
    Task, Measure, dict of str to object
        What is learned, what the model reaches on the held-out samples, and what was chosen.

    Raises
    ------
    UnsupportedModelError
        If a model cannot be converted for training.
    UsageError
        If the data does not fit the options.
    """
    if teacher is None and options.loss is None and not data.labelled:
        raise UsageError(
            f"the data {quote(data.name)} has no labels, so there is nothing to learn from",
            hint="give the original model with --teacher",
        )
    rest, held_out = _divided(data, judges, options.held_out)
    first = Samples.of(held_out.read(torch.arange(min(len(held_out), 32)).numpy()))
    net = _convert(model, options.unfold, first)
    other = to_torch(teacher) if teacher is not None else None
    if other is not None and teacher is not None:
        check_converted(other, teacher, first)
        _match(net, other)
    accelerator = _accelerator(_device(options.device), options.precision)
    shape = _image_shape(first)
    text = _augmentation(options.augment, first) if options.augment == "auto" else options.augment
    augmentation = parse_augmentation(text, shape, options.seed)
    loader = Loader(
        rest,
        options.batch,
        augmentation,
        options.seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    objective = _objective(net, other, first, data.labelled, options)
    if augmentation.cutmix and (other is None or (data.labelled and (options.loss or objective.label_weight))):
        raise UsageError(
            "cutmix makes images of two, which no label fits",
            hint="let the original alone say what they are (--teacher and --label-weight 0), or leave cutmix out",
        )
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


def _accelerator(device: Device, precision: Precision) -> Accelerator:
    """Return an accelerator with these settings, whatever the last one in this process had.

    What the first one was made with holds for all that follow: other settings are refused, or not heeded. Processes
    that learn together keep what they were started with.

    Raises
    ------
    UsageError
        If float16 is asked for on the CPU, where accelerate would take float32 without a word.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    on_cpu = device == "cpu"
    last = AcceleratorState._shared_state
    if last and last["num_processes"] == 1 and (last["_cpu"], last["_mixed_precision"]) != (on_cpu, precision):
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision)
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise UsageError(
            "training in float16 needs a GPU, and this one runs on the CPU",
            hint="leave --precision out, or use --precision bf16",
        )
    return accelerator


def _device(asked: Device) -> Device:
    """Return where it learns; what is said of all networks holds where nothing is said of this one.

    Raises
    ------
    UsageError
        If CUDA is asked for and torch does not find it.
    """
    device = wanted() if asked == "auto" else asked
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "CUDA cannot be used: torch does not find it",
            hint="leave it to --device auto, or install torch for CUDA: https://pytorch.org/get-started",
        )
    return device


def _divided(data: Source, judges: Source | None, count: int | None) -> tuple[Source, Source]:
    """Return samples to learn from, and samples that judge."""
    if judges is not None:
        return data, judges.limited(count)
    return data.split(count or min(1024, max(1, len(data) // 10)))


def _convert(model: Model, unfold: bool | None, first: Samples) -> Trainable:
    """Convert the student; the converter is young, so its result is held against onnxruntime."""
    if unfold is None:
        unfold = all(node.op_type != "BatchNormalization" for node in model.proto.graph.node)
    net = to_torch(model, unfold=unfold)
    check_converted(net, model, first)
    fixed = batch_size(input_specs(model))
    if fixed is not None:
        _check_batches(net, first, fixed)
    return net


@torch.no_grad()
def _check_batches(net: Trainable, first: Samples, fixed: int) -> None:
    """Refuse a graph that can do nothing with more or fewer samples than its inputs say."""
    for count in {1, 2 * fixed, first.count}:
        try:
            net.run(first.taken(torch.arange(count) % first.count).feeds)
        except RuntimeError as error:
            raise UsageError(
                f"the model takes batches of {fixed} only, by its inputs and by sizes inside of it, so it cannot learn "
                "from others",
                hint="export it with a dynamic batch",
            ) from error


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
    net, batches = task.net, calibration(task, data)
    before, start = measure(task), snapshot(net)
    with task.on_device():
        changed = reestimate(net, batches) if any(True for _ in normalisations(net)) else 0
        better = changed > 0 and measure(task).loss < before.loss
        if not better:
            put(net, start)
            return before, {"unfolded": settle(net, batches), "normalisation": "kept" if changed else "none"}
    return before, {"unfolded": 0, "normalisation": "re-estimated"}


def calibration(task: Task, data: Source) -> Callable[[], Iterator[Mapping[str, torch.Tensor]]]:
    """Return what gives the samples from which statistics are taken, the same at every call."""

    def batches() -> Iterator[Mapping[str, torch.Tensor]]:
        for batch in data.limited(_CALIBRATION).batches(64):
            yield Samples.of(batch).to(task.device).feeds

    return batches


def check_gradients(task: Task) -> None:
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
    loss.backward()  # type: ignore[no-untyped-call]  # torch declares no types here
    for value in task.net.module.parameters():
        value.requires_grad_(value.grad is not None)
        value.grad = None
