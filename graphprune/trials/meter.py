# SPDX-License-Identifier: Apache-2.0
"""The meter: what a pruned model is worth, its latency and its accuracy, next to the original."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from graphprune import accuracy, api
from graphprune.errors import UnsupportedModelError

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.data.evaluation import Evaluation
    from graphprune.data.preprocessing import Preprocessing
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.solvers.evidence import Evidence

__all__ = ["Measured", "Measures", "Meter"]


@dataclass(frozen=True)
class Measures:
    """What is measured of each pruned model.

    Parameters
    ----------
    bench : bool
        Latency, against that of the original.
    data : str
        Samples for the accuracy, as :func:`graphprune.open_data` takes them; without labels it is the share of samples
        for which the classes of both models agree. Empty for none.
    calib : str
        Samples with which each model is recovered before its accuracy is measured, and at which criteria and solvers
        look that need some. Empty for none.
    limit : int, optional
        Use this many samples of `data`.
    preprocessing : Preprocessing, optional
        Of 8-bit images among them, as for :func:`graphprune.open_data`.
    """

    bench: bool = False
    data: str = ""
    calib: str = ""
    limit: int | None = None
    preprocessing: Preprocessing | None = None

    def record(self) -> dict[str, object]:
        """Return what decides what is measured."""
        given = self.preprocessing
        prepared = None if given is None else [*given.scale, given.size, given.layout]
        return {
            "bench": self.bench,
            "data": self.data,
            "calib": self.calib,
            "limit": self.limit,
            "preprocessing": prepared,
        }


@dataclass(frozen=True)
class Measured:
    """What was measured; None for what was not.

    Attributes
    ----------
    latency : tuple of float, optional
        Seconds for one inference before and after, and their ratio.
    accuracy : tuple of float, optional
        Share of samples whose class comes first, before and after.
    agreement : float, optional
        Share of samples for which both models choose the same class.
    """

    latency: tuple[float, float, float] | None = None
    accuracy: tuple[float, float] | None = None
    agreement: float | None = None


class Meter:
    """Measures pruned models of one original; samples are opened and the original is run once.

    Parameters
    ----------
    analysis : Analysis
    measures : Measures
    seed : int
        For what is drawn from samples.
    """

    def __init__(self, analysis: Analysis, measures: Measures, seed: int = 0) -> None:
        self._analysis = analysis
        self._measures = measures
        self._seed = seed

    def measure(self, plan: Plan) -> Measured:
        """Prune as planned and measure what is wanted.

        Raises
        ------
        DataError, UsageError
            If the samples do not fit the model.
        """
        if not (self._measures.bench or self._measures.data):
            return Measured()
        pruned = api.apply(self._analysis, plan)
        latency = self._latency(pruned, plan) if self._measures.bench else None
        if not self._measures.data:
            return Measured(latency)
        evaluation = self._evaluated(self._recovered(pruned, plan))
        before = self._before
        accuracies = None if before is None or evaluation.top1 is None else (before, evaluation.top1)
        return Measured(latency, accuracies, evaluation.agreement)

    @cached_property
    def _data(self) -> Source:
        return self._open(self._measures.data).limited(self._measures.limit)

    @cached_property
    def calibration(self) -> Source | None:
        """Unlabelled samples; None where none are given."""
        return self._open(self._measures.calib) if self._measures.calib else None

    def _open(self, text: str) -> Source:
        return accuracy.open_data(text, self._analysis.model, self._measures.preprocessing)

    @cached_property
    def evidence(self) -> Evidence | None:
        """What these samples say, for solvers and criteria; computed once for all trials."""
        if self.calibration is None:
            return None
        from graphprune.evidence.sample_evidence import SampleEvidence

        return SampleEvidence(self._analysis, self.calibration, self._seed)

    @cached_property
    def _before(self) -> float | None:
        """The accuracy of the original; None without labels."""
        return accuracy.evaluate(self._analysis.model, self._data).top1 if self._data.labelled else None

    def _evaluated(self, pruned: Model) -> Evaluation:
        teacher = None if self._data.labelled else self._analysis.model
        return accuracy.evaluate(pruned, self._data, teacher)

    def _recovered(self, pruned: Model, plan: Plan) -> Model:
        if self.calibration is None or plan.is_identity:
            return pruned
        return accuracy.recover(self._analysis, pruned, plan, self.calibration).model

    def _latency(self, pruned: Model, plan: Plan) -> tuple[float, float, float] | None:
        """Time both models in pairs; None where onnxruntime cannot run them."""
        from graphprune.cost.latency.bench import paired_timing

        original = self._analysis.model
        try:
            timing = paired_timing(
                original.path or original.proto.SerializeToString(), pruned.proto.SerializeToString(), plan.model.inputs
            )
        except UnsupportedModelError:
            return None
        return timing.before, timing.after, timing.ratio
