# SPDX-License-Identifier: Apache-2.0
"""What `solve` does after pruning: recover without training, then finetune; and what it does that from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graphprune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graphprune.analysis.analysis import Analysis
    from graphprune.cli.console import Talk
    from graphprune.cli.options.recovery import Restoring
    from graphprune.cli.options.samples import CalibrationSamples
    from graphprune.data.source import Source
    from graphprune.data.synthesis.make_samples import SampleOptions
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan, Step
    from graphprune.recovery.recover_options import Method, Recovery
    from graphprune.recovery.without_data import Restorer

__all__ = ["RecoveryMaterial", "RecoverySteps", "find_material"]

_MADE = "difference on made samples (no accuracy)"
_BEYOND = 1e299  # stands for infinity and for what is no number


@dataclass(frozen=True)
class RecoveryMaterial:
    """What channels and widths are chosen by, and accuracy is brought back from.

    Parameters
    ----------
    samples : Source, optional
        Those of ``--calib``; or those that were made.
    restorer : Restorer, optional
        What knows how samples were made, and which network they suit.
    note : str
        Why there is nothing, where there could be something.
    """

    samples: Source | None = None
    restorer: Restorer | None = None
    note: str = ""

    @property
    def dense(self) -> Analysis | None:
        """The network that the samples suit, where that is not the original."""
        return None if self.restorer is None else self.restorer.dense

    @property
    def learned(self) -> Source | SampleOptions | None:
        """What a network learns from where nobody says it: the samples, or more that are made like them."""
        from graphprune.data.synthesis.make_samples import SampleOptions

        if self.restorer is None:
            return self.samples
        return SampleOptions()

    @property
    def measures(self) -> bool:
        """Whether widths are measured where nobody says how they are chosen."""
        return self.restorer is not None and self.restorer.measures


def find_material(
    analysis: Analysis, calibration: CalibrationSamples, wanted: Restoring, seed: int, talk: Talk
) -> RecoveryMaterial:
    """Open samples, or make some where nobody gives any and accuracy shall come back.

    Raises
    ------
    DataError, UsageError
        If samples were asked for that cannot be opened or made, or something shall be learned from none.
    """
    from graphprune.data.synthesis.make_samples import read_request

    request = None if calibration.calib is None else read_request(calibration.calib)
    if request is None and (calibration.calib is not None or not wanted.makes_samples):
        return RecoveryMaterial(calibration.open(analysis.model, talk))
    from graphprune.recovery.without_data import automatic_restorer, restorer_for

    with talk.steps("making samples") as progress:
        if request is not None:
            restorer = restorer_for(analysis, replace(request, seed=seed), tell=progress)
            return RecoveryMaterial(restorer.made.source, restorer)
        found, why = automatic_restorer(analysis, seed, tell=progress)
    if found is None and wanted.finetune:
        raise DataError(f"--finetune has nothing to learn from: {why}", hint="give samples with --data SOURCE")
    if found is None:
        return RecoveryMaterial(note=f"accuracy is not brought back: {why}; --calib SOURCE gives samples")
    return RecoveryMaterial(found.made.source, found)


@dataclass(frozen=True)
class RecoverySteps:
    """The steps that are wanted, with their samples.

    Parameters
    ----------
    wanted : Restoring
    seed : int
    material : RecoveryMaterial
    training_data : Source or SampleOptions, optional
        Of ``--data``: samples, or how some are made. By default those of the material, and more like them where these
        are made.
    """

    wanted: Restoring
    seed: int
    material: RecoveryMaterial
    training_data: Source | SampleOptions | None

    def __call__(self, analysis: Analysis, plan: Plan, pruned: Model, talk: Talk) -> tuple[Model, tuple[Step, ...]]:
        """Return the model after all steps, and what each of them brought."""
        steps: list[Step] = []
        if plan.is_identity:
            talk.note("nothing is removed, so there is nothing to bring back")
            return pruned, ()
        method, samples = self.wanted.method, self.material.samples
        if method is not None and samples is not None:
            pruned, step = self._recover(analysis, plan, pruned, samples, method, talk)
            steps.append(step)
        training_data = self.training_data or self.material.learned
        if self.wanted.finetune and training_data is not None:
            pruned, step = self._finetune(analysis, pruned, training_data, talk)
            steps.append(step)
        return pruned, tuple(steps)

    def _recover(
        self, analysis: Analysis, plan: Plan, pruned: Model, samples: Source, method: Method, talk: Talk
    ) -> tuple[Model, Step]:
        from graphprune import accuracy
        from graphprune.recovery.recover_options import RecoverOptions

        restorer = self.material.restorer
        with talk.progress("recovering") as progress:
            if restorer is not None:
                options = RecoverOptions(method=method, samples=len(samples), seed=self.seed)
                recovery = restorer.recover(plan, pruned, options, progress)
                return recovery.model, _recovered(recovery, restorer.facts, _MADE)
            options = RecoverOptions(method=method, seed=self.seed)
            recovery = accuracy.recover(analysis, pruned, plan, samples, options, progress=progress)
        facts = {"data": samples.name, "samples": recovery.samples, "seed": self.seed}
        if recovery.misfit is not None and recovery.agreement is not None:
            facts |= {"misfit": list(recovery.misfit), "agreement": list(recovery.agreement)}
        return recovery.model, _recovered(recovery, facts, "output error")

    def _finetune(
        self, analysis: Analysis, pruned: Model, data: Source | SampleOptions, talk: Talk
    ) -> tuple[Model, Step]:
        from graphprune.cli.training_run import ProgressLine
        from graphprune.data.synthesis.make_samples import SampleOptions
        from graphprune.plan.schema import Step

        with talk.stage("importing torch"):
            from graphprune.training.finetune import FinetuneOptions, finetune
            from graphprune.training.made_training_data import make_training_data
        epochs = FinetuneOptions.epochs if self.wanted.epochs is None else self.wanted.epochs
        options, judges, facts = FinetuneOptions(epochs=epochs, seed=self.seed), None, {}
        if isinstance(data, SampleOptions):
            wanted = replace(data, seed=self.seed, shapes=analysis.input_shapes)
            with talk.steps("making samples") as progress:
                made = make_training_data(analysis.model, wanted, progress)
            data, judges, options, facts = made.learned, made.judges, made.suited(options), dict(made.facts)
        meter = ProgressLine()
        with talk.stage("finetuning"), meter:
            tuned = finetune(pruned, data, analysis.model, options, meter.listen, judges)
        facts |= {"data": data.name, "epochs": epochs, "rate": tuned.rate, "steps": tuned.steps}
        facts |= {name: tuned.facts[name] for name in ("samples", "held_out", "augment")} | {"seed": self.seed}
        before, after = _finite(tuned.before.loss), _finite(tuned.after.loss)
        how = "distillation and labels" if tuned.facts["labels"] else "distillation"
        measure = "held-out loss" if judges is None else "loss on made samples"
        return tuned.model, Step("finetune", how, measure, before, after, tuned.improved, facts)


def _recovered(recovery: Recovery, facts: Mapping[str, Any], measure: str) -> Step:
    """Return the record of a recovery."""
    from graphprune.plan.schema import Step

    facts = {**facts, "samples": recovery.samples, "held_out": recovery.held_out}
    before, after = _finite(recovery.before), _finite(recovery.after)
    return Step("recover", recovery.method, measure, before, after, recovery.improved, facts)


def _finite(value: float) -> float:
    """Return a measure as JSON can hold it."""
    return value if abs(value) < _BEYOND else _BEYOND
