# SPDX-License-Identifier: Apache-2.0
"""What `solve` does after pruning: recover without training, then finetune; and what it does that from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graphprune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.cli.console import Talk
    from graphprune.cli.options.recovery import Restoring
    from graphprune.cli.options.samples import CalibrationSamples
    from graphprune.data.judging import DividedSamples
    from graphprune.data.source import Source
    from graphprune.data.synthesis.make_samples import MadeSamples, SampleOptions
    from graphprune.model.load import Model
    from graphprune.plan.budget import BudgetRequest
    from graphprune.plan.schema import Plan, Step
    from graphprune.planning.solver_choice import SolverChoice
    from graphprune.recovery.recover_options import Method, Recovery
    from graphprune.recovery.without_data import Restorer

__all__ = ["RecoveryMaterial", "RecoverySteps", "added_samples", "find_material"]

_MADE = "difference on made samples (no accuracy)"
_FEWEST_DIVIDED = 2
_FEW = 128
"""Samples below which made ones beside them were worth points: docs/without_data.md, "Many from few"."""
_BEYOND = 1e299  # stands for infinity and for what is no number


@dataclass(frozen=True)
class RecoveryMaterial:
    """What channels and widths are chosen by, and accuracy is brought back from.

    Parameters
    ----------
    samples : Source, optional
        What recovery is given: those of ``--calib``, or those that were made.
    restorer : Restorer, optional
        What knows how samples were made, and which network they suit.
    note : str
        Why there is nothing, where there could be something.
    divided : DividedSamples, optional
        Samples of ``--calib`` by what they are for, where there is more than one.
    added : MadeSamples, optional
        Samples that are made and refined, and fitted to beside those of ``--calib``.
    """

    samples: Source | None = None
    restorer: Restorer | None = None
    note: str = ""
    divided: DividedSamples | None = None
    added: MadeSamples | None = None

    @classmethod
    def given(cls, samples: Source | None, analysis: Analysis, added: MadeSamples | None = None) -> RecoveryMaterial:
        """Return samples that somebody gave, some of them set apart to judge, and what is added to them."""
        if samples is None or len(samples) < _FEWEST_DIVIDED:
            return cls(samples, added=added)
        from graphprune.data.judging import divide_samples
        from graphprune.recovery.recover_options import RecoverOptions

        used, held_out = RecoverOptions().limited(samples)
        macs = analysis.cost.flops(analysis.cost.sizes) // 2
        return cls(samples, divided=divide_samples(samples, used, held_out, macs), added=added)

    @property
    def shown(self) -> Source | None:
        """What criteria and solvers look at."""
        from graphprune.data.joined import joined

        own = self.samples if self.divided is None else self.divided.shown
        return None if own is None else joined(own, self.further)

    @property
    def further(self) -> Source | None:
        """What weights are fitted to as well."""
        return None if self.added is None else self.added.source

    def with_data(
        self, data: Source | SampleOptions | None, *, learns: bool
    ) -> tuple[Source | SampleOptions | None, Source | None, bool]:
        """Return what is learned from, what judges, and whether the latter is set apart from other samples.

        Parameters
        ----------
        data : Source or SampleOptions, optional
            Of ``--data``, or how samples to learn from are made. Where ``--calib`` names the same, some of these are
            set apart already.
        learns : bool
            Whether the network learns from it, too.
        """
        from graphprune.data.judging import DividedSamples
        from graphprune.data.synthesis.make_samples import SampleOptions

        if data is None and learns and self.restorer is not None:
            data = SampleOptions()
        if isinstance(data, SampleOptions):
            return (data, None, False) if self.divided is None else (data, self.divided.judged, True)
        if data is not None and not (self.samples is not None and self.samples.name == data.name):
            if not learns:
                return None, data, False
            parts = DividedSamples.of_training(data)
            return parts.learned, parts.judged, True
        if self.divided is None:
            return self.samples, None, False
        return self.divided.learned, self.divided.judged, True

    @property
    def dense(self) -> Analysis | None:
        """The network that the samples suit, where that is not the original."""
        return None if self.restorer is None else self.restorer.dense

    def solver(self, analysis: Analysis, requests: Sequence[BudgetRequest]) -> SolverChoice | None:
        """Return how widths are chosen where nobody says it; None where there is nothing to measure them on."""
        from graphprune.planning.solver_choice import choose_made_solver, choose_solver

        made = self.restorer
        if made is not None and made.made.refinement is None:
            general = choose_solver(analysis, len(made.made.source), requests)
            return choose_made_solver(general, matched=made.matched is not None, measures=made.measures)
        return None if self.shown is None else choose_solver(analysis, len(self.shown), requests)


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
    from graphprune.data.varied import varied

    request = None if calibration.calib is None else read_request(calibration.calib)
    if request is None and (calibration.calib is not None or not wanted.makes_samples):
        samples = calibration.open(analysis.model, talk)
        if samples is not None:
            varied(samples, wanted.copies, seed)  # what has no images is refused before anything takes long
        added = added_samples(analysis, wanted.add_synthetic, seed, talk)
        material = RecoveryMaterial.given(samples, analysis, added)
        return replace(material, note=_advice(analysis, samples)) if added is None and wanted.method else material
    found: Restorer | None
    with talk.steps("making samples") as progress:
        from graphprune.recovery.without_data import automatic_restorer, restorer_for

        if request is not None:
            found, why = restorer_for(analysis, replace(request, seed=seed), tell=progress), ""
        else:
            found, why = automatic_restorer(analysis, seed, tell=progress)
    if found is None and wanted.finetune:
        raise DataError(f"--finetune has nothing to learn from: {why}", hint="give samples with --data SOURCE")
    if found is None and wanted.copies:
        raise DataError(f"--copies has nothing to make copies of: {why}", hint="give images with --calib SOURCE")
    if found is None:
        return RecoveryMaterial(note=f"accuracy is not brought back: {why}; --calib SOURCE gives samples")
    varied(found.made.source, wanted.copies, seed)
    return RecoveryMaterial(found.made.source, found)


def added_samples(analysis: Analysis, count: int | None, seed: int, talk: Talk) -> MadeSamples | None:
    """Make and refine samples that are fitted to beside those that are given, if that is wanted.

    Raises
    ------
    DataError, UnsupportedModelError
        If the file does not tell what they should be like.
    """
    if count is None:
        return None
    from graphprune.data.synthesis.make_samples import SampleOptions
    from graphprune.recovery.made_samples import made_samples

    options = SampleOptions(count, seed=seed, shapes=analysis.input_shapes, quality="fine")
    with talk.steps("making samples") as progress:
        made = made_samples(analysis.model, options, progress)
    if made.refinement is None:
        raise DataError(f"--add-synthetic adds nothing: {made.knowledge}", hint="leave it out")
    return made


def _advice(analysis: Analysis, samples: Source | None) -> str:
    """Say how a few samples become more, where the file tells enough for it."""
    from graphprune.data.statistics import remembered

    if samples is None or len(samples) >= _FEW or not remembered(analysis.model, analysis.graph):
        return ""
    return (
        f"{len(samples)} samples are few: --add-synthetic 512 also fits to ones that are made from what the file "
        "remembers (with torch, in a minute or more)"
    )


@dataclass(frozen=True)
class RecoverySteps:
    """The steps that are wanted, with their samples.

    Parameters
    ----------
    wanted : Restoring
    seed : int
    material : RecoveryMaterial
    training_data : Source or SampleOptions, optional
        What is learned from, or how it is made.
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
        if self.wanted.finetune and self.training_data is not None:
            pruned, step = self._finetune(analysis, plan, pruned, self.training_data, talk)
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
                options = RecoverOptions(method=method, samples=len(samples), seed=self.seed, copies=self.wanted.copies)
                recovery = restorer.recover(plan, pruned, options, progress)
                return recovery.model, _recovered(recovery, restorer.facts, _MADE)
            options = RecoverOptions(method=method, seed=self.seed, copies=self.wanted.copies)
            further = self.material.further
            recovery = accuracy.recover(analysis, pruned, plan, samples, options, further=further, progress=progress)
        facts: dict[str, Any] = {"data": samples.name, "samples": recovery.samples, "seed": self.seed}
        if self.wanted.copies:
            facts["copies"] = self.wanted.copies
        if self.material.added is not None:
            facts["added"] = added_facts(self.material.added)
        if recovery.misfit is not None and recovery.agreement is not None:
            facts |= {"misfit": list(recovery.misfit), "agreement": list(recovery.agreement)}
        return recovery.model, _recovered(recovery, facts, "output error")

    def _finetune(
        self, analysis: Analysis, plan: Plan, pruned: Model, data: Source | SampleOptions, talk: Talk
    ) -> tuple[Model, Step]:
        from graphprune.cli.training_run import ProgressLine
        from graphprune.data.synthesis.make_samples import SampleOptions
        from graphprune.plan.schema import Step

        with talk.stage("importing torch"):
            from graphprune.training.block_hints import find_hints
            from graphprune.training.finetune import FinetuneOptions, finetune
            from graphprune.training.made_training_data import make_training_data
        meter = ProgressLine("finetuning")
        epochs = FinetuneOptions.epochs if self.wanted.epochs is None else self.wanted.epochs
        options, judges, facts = FinetuneOptions(epochs=epochs, seed=self.seed), None, {}
        if isinstance(data, SampleOptions):
            wanted = replace(data, seed=self.seed, shapes=analysis.input_shapes)
            with talk.steps("making samples") as progress:
                made = make_training_data(analysis.model, wanted, progress)
            data, judges, options, facts = made.learned, made.judges, made.suited(options), dict(made.facts)
        hints = find_hints(analysis, plan, pruned)
        with meter:
            tuned = finetune(pruned, data, analysis.model, options, meter.listen, judges, hints)
        facts |= {"data": data.name, "epochs": epochs, "rate": tuned.rate, "steps": tuned.steps}
        facts |= {name: tuned.facts[name] for name in ("samples", "held_out", "augment", "hints", "device")} | {
            "seed": self.seed
        }
        before, after = _finite(tuned.before.loss), _finite(tuned.after.loss)
        how = "distillation and labels" if tuned.facts["labels"] else "distillation"
        measure = "held-out loss" if judges is None else "loss on made samples"
        return tuned.model, Step("finetune", how, measure, before, after, tuned.improved, facts)


def added_facts(made: MadeSamples) -> dict[str, Any]:
    """Return what is recorded of samples that were added."""
    refined = {} if made.refinement is None else {"mismatch": list(made.refinement.mismatch)}
    return {"data": made.source.name, "samples": len(made.source), "knowledge": made.knowledge, **refined}


def _recovered(recovery: Recovery, facts: Mapping[str, Any], measure: str) -> Step:
    """Return the record of a recovery."""
    from graphprune.data.providers import current
    from graphprune.plan.schema import Step

    facts = {**facts, "samples": recovery.samples, "held_out": recovery.held_out, "device": current().name}
    before, after = _finite(recovery.before), _finite(recovery.after)
    return Step("recover", recovery.method, measure, before, after, recovery.improved, facts)


def _finite(value: float) -> float:
    """Return a measure as JSON can hold it."""
    return value if abs(value) < _BEYOND else _BEYOND
