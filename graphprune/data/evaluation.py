# SPDX-License-Identifier: Apache-2.0
"""Evaluation: a model on data, against labels or against a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat, tee
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array
from graphprune.data.agreement import Accuracy, Agreement
from graphprune.data.feeding import affordable_batch, filled
from graphprune.data.session import Session
from graphprune.data.signature import input_specs
from graphprune.errors import DataError, UsageError, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from graphprune.data.source import Batch, Source
    from graphprune.model.load import Model

__all__ = ["Evaluation", "compare", "evaluate"]

_ROWS = 2
"""Axes of an array with a row for each sample."""


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on some data.

    Parameters
    ----------
    samples : int
    top1, top5 : float or None
        Share of samples whose class is first, or among the first five; None without labels.
    agreement, kl : float or None
        Share of samples with the teacher's class, and mean divergence from its probabilities in nats; None without
        a teacher, or where the first output is no vector of logits.
    output_error : float or None
        Squared error against the teacher's outputs, relative to their variance; None without a teacher.
    """

    samples: int
    top1: float | None = None
    top5: float | None = None
    agreement: float | None = None
    kl: float | None = None
    output_error: float | None = None


def evaluate(
    model: Model, source: Source, teacher: Model | None = None, progress: Callable[[int, int], None] | None = None
) -> Evaluation:
    """Run a model on data and count how often it is right, or how close it comes to a teacher.

    Parameters
    ----------
    model : Model
    source : Source
        With labels for accuracies; without them, a teacher is needed.
    teacher : Model, optional
        A model with the same inputs and outputs.
    progress : callable, optional
        Told how many samples are done, and how many there are.

    Raises
    ------
    UsageError
        If there are neither labels nor a teacher, or the teacher has other outputs.
    DataError
        If labels do not fit the first output.
    UnsupportedModelError
        If onnxruntime cannot run a model.
    """
    if not source.labelled and teacher is None:
        why = getattr(source.reader, "unlabelled", "")
        raise UsageError(
            f"{quote(source.name)} has no labels to compare with{f': {why}' if why else ''}",
            hint="compare with another model by --teacher MODEL, or give a folder for every class, in their order",
        )
    session = Session(model)
    other = None if teacher is None else Session(teacher)
    if other is not None and other.outputs != session.outputs:
        raise UsageError(f"the teacher gives {quote(other.outputs)}, the model {quote(session.outputs)}")
    accuracy, agreement = Accuracy(), Agreement(session.outputs)
    done = 0
    for batch, real, outputs, taught in _side_by_side(
        session, other, filled(source, input_specs(model), affordable_batch(model, source))
    ):
        if batch.labels is not None:
            labels = _one_a_sample(batch.labels[:real])
            accuracy.add(_logits(outputs[0], labels, source), labels)
        if other is not None:
            agreement.add(outputs, taught, samples=real)
        done += real
        if progress is not None:
            progress(done, len(source))
    return _result(done, accuracy if source.labelled else None, None if other is None else agreement)


def compare(
    teacher: Model, student: Model, source: Source, progress: Callable[[int, int], None] | None = None
) -> Agreement:
    """Run two models on the same samples and compare all their outputs; labels are not looked at."""
    sessions = Session(teacher), Session(student)
    agreement = Agreement(sessions[0].outputs)
    for _, real, wanted, own in _side_by_side(
        *sessions, filled(source, input_specs(teacher), affordable_batch(teacher, source))
    ):
        agreement.add(own, wanted, samples=real)
        if progress is not None:
            progress(agreement.count, len(source))
    return agreement


def _side_by_side(
    one: Session, two: Session | None, batches: Iterator[tuple[Batch, int]]
) -> Iterator[tuple[Batch, int, list[Array], list[Array]]]:
    """Yield every batch, how many of its samples count, and what both sessions give for these."""
    batches, *each = tee(batches, 3)
    runs = [
        repeat((None, [])) if session is None else session.run_each((batch.feeds for batch, _ in own), one.outputs)
        for session, own in zip((one, two), each, strict=True)
    ]
    for (batch, real), (_, first), (_, second) in zip(batches, *runs, strict=False):
        yield batch, real, _real(first, len(batch), real), _real(second, len(batch), real)


def _result(samples: int, accuracy: Accuracy | None, agreement: Agreement | None) -> Evaluation:
    return Evaluation(
        samples=samples,
        top1=accuracy.top1 if accuracy else None,
        top5=accuracy.top5 if accuracy else None,
        agreement=agreement.agreement if agreement else None,
        kl=agreement.kl if agreement else None,
        output_error=agreement.relative_error if agreement else None,
    )


def _real(outputs: list[Array], fed: int, real: int) -> list[Array]:
    """Return outputs without the samples that only filled a batch up."""
    if real == fed:
        return outputs
    return [value[:real] if value.ndim and len(value) == fed else value for value in outputs]


def _one_a_sample(labels: Array) -> Array:
    """Return labels without an axis of length 1 behind the samples, which some keep."""
    return labels[:, 0] if labels.ndim == _ROWS and labels.shape[1] == 1 else labels


def _logits(output: Array, labels: Array, source: Source) -> Array:
    """Return the first output as one row of logits per sample.

    Raises
    ------
    DataError
        If it is something else, or a label is no class of it.
    """
    rows = (
        output.reshape(len(output), -1) if output.ndim > 2 and output.size == len(output) * output.shape[1] else output
    )
    if rows.ndim == _ROWS and rows.shape == labels.shape:
        raise DataError(
            f"the labels of {quote(source.name)} have one value for each class, and not one class a sample",
            hint="give the class alone: labels.argmax(axis=1)",
        )
    if rows.ndim != _ROWS or len(rows) != len(labels) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels of shape {labels.shape} and type {labels.dtype} do not fit outputs of shape {output.shape}",
            hint="accuracies need one row of logits and one integer class per sample; --teacher compares all outputs",
        )
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < rows.shape[1]):
        raise DataError(
            f"{quote(source.name)} has classes from {labels.min()} to {labels.max()}, the model knows {rows.shape[1]}"
        )
    return np.asarray(rows)
