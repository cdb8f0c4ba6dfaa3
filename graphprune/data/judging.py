# SPDX-License-Identifier: Apache-2.0
"""Judging: which samples show what a pruned network is worth, and what they say of it beside the original.

Samples that a network is fitted to flatter it, so some are set apart before anything looks at them: those that recovery
holds out anyway, and as many of the ones that nothing uses as the work allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from graphprune.data.evaluation import compare, evaluate
from graphprune.data.source import Source
from graphprune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphprune.model.load import Model

    Progress = Callable[[int, int], None]

__all__ = ["AccuracyChange", "DividedSamples", "Judge", "Judgement", "divide_samples"]

_MOST_WORK = 500_000_000_000
"""Multiply-adds of one pass over the samples that judge, beyond those that are held out in any case."""

Judgement = Literal["accuracy", "agreement", "output error"]


@dataclass(frozen=True, eq=False)
class DividedSamples:
    """Samples by what they are for.

    Attributes
    ----------
    used : Source
        What recovery is given, which holds a part of it out.
    shown : Source
        The rest of that part: what criteria and solvers look at.
    learned : Source
        What finetuning may learn from.
    judged : Source
        What nothing is fitted to.
    """

    used: Source
    shown: Source
    learned: Source
    judged: Source

    @classmethod
    def of_training(cls, data: Source) -> DividedSamples:
        """Set a tenth of some training data apart, 1,024 samples at most.

        Raises
        ------
        UsageError
            If there is only one.
        """
        rest, judged = data.split(min(1024, max(1, len(data) // 10)))
        return cls(rest, rest, rest, judged)


def divide_samples(samples: Source, used: Source, held_out: int, macs: int) -> DividedSamples:
    """Set samples apart that judge.

    Parameters
    ----------
    samples : Source
    used : Source
        Those of them that recovery uses.
    held_out : int
        How many of these it holds out.
    macs : int
        Multiply-adds of the network for one sample.

    Raises
    ------
    UsageError
        If there is only one sample.
    """
    shown, judged = used.split(held_out)
    unused = _without(samples, used)
    others = min(len(unused), max(0, _MOST_WORK // max(1, macs) - len(judged)))
    if others:
        positions = np.sort(np.append(judged.positions, unused.limited(others).positions))
        judged = Source(samples.name, samples.reader, positions)
    return DividedSamples(used, shown, _without(samples, judged), judged)


def _without(samples: Source, others: Source) -> Source:
    return samples.subset(np.flatnonzero(~np.isin(samples.positions, others.positions)))


@dataclass(frozen=True)
class AccuracyChange:
    """What became of a network, as measured.

    Attributes
    ----------
    measure : {"accuracy", "agreement", "output error"}
        The share of samples whose class is right; or is that which the original gives; or the squared error of all
        outputs against the original's, relative to their variance.
    before, after : float
        Of the original, and of what became of it.
    samples : int
    data : str
        What the user named.
    held_out : bool
        Whether the samples were set apart from others that were used.
    """

    measure: Judgement
    before: float
    after: float
    samples: int
    data: str
    held_out: bool


class Judge:
    """Says what a network is worth on some samples; the original is measured at once.

    Parameters
    ----------
    original : Model
    source : Source
        By its labels where they are classes that the network gives, else by what the original says.
    held_out : bool
        As for :class:`AccuracyChange`.
    strict : bool
        Whether labels that do not fit are an error.
    progress : callable, optional
        Told how many samples are done, and how many there are.

    Attributes
    ----------
    passed_over : str
        Why labels are not compared with, where there are some that do not fit.

    Raises
    ------
    DataError
        If `strict` and the labels do not fit the outputs, or samples do not fit the model.
    """

    def __init__(
        self,
        original: Model,
        source: Source,
        *,
        held_out: bool = False,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._original = original
        self._source = source
        self._held_out = held_out
        self._top1: float | None = None
        self.passed_over = ""
        if source.labelled:
            try:
                self._top1 = evaluate(original, source, progress=progress).top1
            except DataError as error:  # labels may be of another kind than one class a sample
                if strict:
                    raise
                self.passed_over = error.message

    def change(self, result: Model, progress: Progress | None = None) -> AccuracyChange:
        """Return what became of the original."""
        measure: Judgement = "accuracy"
        if self._top1 is not None:
            before, after = self._top1, evaluate(result, self._source, progress=progress).top1 or 0.0
        else:
            found = compare(self._original, result, self._source, progress)
            if found.agreement is not None and len(found.names) == 1:
                measure, before, after = "agreement", 1.0, found.agreement
            else:
                measure, before, after = "output error", 0.0, found.relative_error
        return AccuracyChange(measure, before, after, len(self._source), self._source.name, self._held_out)
