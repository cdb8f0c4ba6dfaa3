# SPDX-License-Identifier: Apache-2.0
"""The meter: what a pruned model is worth, its latency and its accuracy, next to the original."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from graphprune import accuracy, api
from graphprune.cost.latency.environment import ONNXRUNTIME
from graphprune.data.judging import Judge, divide_samples
from graphprune.data.synthesis.make_samples import SampleOptions, make_samples, read_request
from graphprune.errors import UnsupportedModelError
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from graphprune.analysis.analysis import Analysis
    from graphprune.data.judging import DividedSamples
    from graphprune.data.preprocessing import Preprocessing
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.recovery.without_data import Restorer
    from graphprune.solvers.evidence import Evidence

__all__ = ["Measured", "Measures", "Meter"]

_TELLING = 100
"""Samples that tell results apart which are some points away from each other."""
_FEWEST = 2
_JUDGES = 128


@dataclass(frozen=True)
class Measures:
    """What is measured of each pruned model.

    Parameters
    ----------
    bench : bool
        Latency, against that of the original.
    data : str
        Samples for the accuracy, as :func:`graphprune.open_data` takes them; without labels it is the share of samples
        for which the classes of both models agree. Empty for none: then a part of `calib` is held out for it.
    calib : str
        Samples from which each model is recovered before it is measured, and at which criteria and solvers look that
        need some. Empty for none.
    limit : int, optional
        Use this many samples of `data`.
    preprocessing : Preprocessing, optional
        Of 8-bit images among them, as for :func:`graphprune.open_data`.
    alone : bool
        Without `calib`, make samples from what the file remembers, as `solve` does.
    recover : bool
        Whether models are recovered.
    """

    bench: bool = False
    data: str = ""
    calib: str = ""
    limit: int | None = None
    preprocessing: Preprocessing | None = None
    alone: bool = False
    recover: bool = True

    @property
    def samples(self) -> bool:
        """Whether there are samples for solvers and criteria, as far as is known before anything is read."""
        return bool(self.calib) or self.alone

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
            "alone": self.alone,
            "recover": self.recover,
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
    explained : float, optional
        Share of the variance of the original's outputs that is there, where they are no classes; at least 0.
    judged : str
        By which samples; or why by none.
    """

    latency: tuple[float, float, float] | None = None
    accuracy: tuple[float, float] | None = None
    agreement: float | None = None
    explained: float | None = None
    judged: str = ""


class Meter:
    """Measures pruned models of one original; samples are opened or made, and the original is run, once.

    Parameters
    ----------
    analysis : Analysis
    measures : Measures
    seed : int
        For what is drawn from samples.
    places : mapping of str to Path
        Where samples are that have another place than their name says.
    runtime : str
        In which latencies are measured.
    """

    def __init__(
        self,
        analysis: Analysis,
        measures: Measures,
        seed: int = 0,
        places: Mapping[str, Path] | None = None,
        runtime: str = ONNXRUNTIME,
    ) -> None:
        self._analysis = analysis
        self._measures = measures
        self._seed = seed
        self._places = places or {}
        self._runtime = runtime

    def measure(self, plan: Plan) -> Measured:
        """Prune as planned and measure what is wanted.

        Raises
        ------
        DataError, UsageError
            If the samples do not fit the model.
        """
        wanted = self._measures
        if not (wanted.bench or wanted.data or wanted.samples):
            return Measured()
        pruned = api.apply(self._analysis, plan)
        latency = self._latency(pruned, plan) if wanted.bench else None
        judge, judged = self._judge
        if judge is None:
            return Measured(latency, judged=judged)
        change = judge.change(self._recovered(pruned, plan))
        return Measured(
            latency,
            accuracy=(change.before, change.after) if change.measure == "accuracy" else None,
            agreement=change.after if change.measure == "agreement" else None,
            explained=max(0.0, 1 - change.after) if change.measure == "output error" else None,
            judged=judged,
        )

    @cached_property
    def _judge(self) -> tuple[Judge | None, str]:
        """What measures, and which samples these are."""
        model = self._analysis.model
        if self._measures.data:
            data = self._open(self._measures.data).limited(self._measures.limit)
            return Judge(model, data, strict=data.labelled), _named(len(data), "sample", data.name)
        if self._divided is not None:
            apart = self._divided.judged
            return Judge(model, apart, held_out=True), _named(len(apart), "held-out sample", apart.name)
        restorer, why = self._restorer
        if restorer is None:
            return None, f"nothing: {why}" if why else ""
        options = SampleOptions(_JUDGES, seed=self._seed + 1, shapes=self._analysis.input_shapes)
        made = make_samples(model, options).source
        return Judge(model, made), f"{text.plural(len(made), 'sample')} that are made: this ranks, and is no accuracy"

    @cached_property
    def calibration(self) -> Source | None:
        """Unlabelled samples that somebody gives; None where there are none."""
        given = self._measures.calib
        return self._open(given) if given and read_request(given) is None else None

    @cached_property
    def _divided(self) -> DividedSamples | None:
        """The same by what they are for; None where there are too few."""
        if self.calibration is None or len(self.calibration) < _FEWEST:
            return None
        used, held_out = RecoverOptions().limited(self.calibration)
        cost = self._analysis.cost
        return divide_samples(self.calibration, used, held_out, cost.flops(cost.sizes) // 2)

    @cached_property
    def _restorer(self) -> tuple[Restorer | None, str]:
        """What recovers from the file alone, or why nothing does."""
        from graphprune.recovery.without_data import automatic_restorer, restorer_for

        request = read_request(self._measures.calib)
        if request is not None:
            return restorer_for(self._analysis, replace(request, seed=self._seed)), ""
        if self._measures.calib or not self._measures.alone:
            return None, ""
        restorer, why = automatic_restorer(self._analysis, self._seed)
        return restorer, "" if restorer else why

    def _open(self, name: str) -> Source:
        place = str(self._places.get(name, name))
        return replace(accuracy.open_data(place, self._analysis.model, self._measures.preprocessing), name=name)

    @cached_property
    def evidence(self) -> Evidence | None:
        """What these samples say, for solvers and criteria; computed once for all trials."""
        from graphprune.evidence.sample_evidence import SampleEvidence

        if self.calibration is not None:
            shown = self.calibration if self._divided is None else self._divided.shown
            return SampleEvidence(self._analysis, shown, self._seed)
        restorer, _ = self._restorer
        return None if restorer is None else SampleEvidence(restorer.dense, restorer.made.source, self._seed)

    def _recovered(self, pruned: Model, plan: Plan) -> Model:
        if plan.is_identity or not self._measures.recover:
            return pruned
        source = self.calibration or self._restorer[0]
        return pruned if source is None else accuracy.recover(self._analysis, pruned, plan, source).model

    def _latency(self, pruned: Model, plan: Plan) -> tuple[float, float, float] | None:
        """Time both models in pairs; None where the runtime cannot run them."""
        from graphprune.cost.latency.bench import paired_timing
        from graphprune.export.runtime_stopwatch import stopwatch_for

        original = self._analysis.model
        try:
            timing = paired_timing(
                original.path or original.proto.SerializeToString(),
                pruned.proto.SerializeToString(),
                plan.model.inputs,
                stopwatch_for(self._runtime),
            )
        except UnsupportedModelError:
            return None
        return timing.before, timing.after, timing.ratio


def _named(count: int, kind: str, name: str) -> str:
    """Return which samples judge, and that few of them do not tell results apart."""
    doubt = "" if count >= _TELLING else "; too few to tell results apart that are alike"
    return f"{text.plural(count, kind)} of {name}{doubt}"
