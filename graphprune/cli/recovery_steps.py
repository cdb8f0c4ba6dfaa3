# SPDX-License-Identifier: Apache-2.0
"""What `solve` does after pruning: recover without training, then finetune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.cli.console import Talk
    from graphprune.cli.options.recovery import Restoring
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan, Step
    from graphprune.recovery.recover_options import Recovery

__all__ = ["RecoverySteps"]

_BEYOND = 1e299  # stands for infinity and for what is no number


@dataclass(frozen=True)
class RecoverySteps:
    """The steps that are wanted, with their samples.

    Parameters
    ----------
    wanted : Restoring
    seed : int
    samples : Source, optional
        Of ``--calib``.
    training_data : Source, optional
        Of ``--data``; by default those of ``--calib``.
    """

    wanted: Restoring
    seed: int
    samples: Source | None
    training_data: Source | None

    def __call__(self, analysis: Analysis, plan: Plan, pruned: Model, talk: Talk) -> tuple[Model, tuple[Step, ...]]:
        """Return the model after all steps, and what each of them brought."""
        from graphprune import accuracy
        from graphprune.recovery.recover_options import RecoverOptions

        steps: list[Step] = []
        if plan.is_identity:
            talk.note("nothing is removed, so there is nothing to bring back")
            return pruned, ()
        if self.wanted.recover is not None and self.samples is not None:
            options = RecoverOptions(method=self.wanted.recover, seed=self.seed)
            with talk.progress("recovering") as progress:
                recovery = accuracy.recover(analysis, pruned, plan, self.samples, options, progress=progress)
            pruned = recovery.model
            steps.append(_recovered(recovery, self.samples, self.seed))
        training_data = self.training_data or self.samples
        if self.wanted.finetune and training_data is not None:
            pruned, step = self._finetune(analysis, pruned, training_data, talk)
            steps.append(step)
        return pruned, tuple(steps)

    def _finetune(self, analysis: Analysis, pruned: Model, data: Source, talk: Talk) -> tuple[Model, Step]:
        from graphprune.cli.training_run import ProgressLine
        from graphprune.plan.schema import Step

        with talk.stage("importing torch"):
            from graphprune.training.finetune import FinetuneOptions, finetune
        meter = ProgressLine()
        epochs = FinetuneOptions.epochs if self.wanted.epochs is None else self.wanted.epochs
        options = FinetuneOptions(epochs=epochs, seed=self.seed)
        with talk.stage("finetuning"), meter:
            tuned = finetune(pruned, data, analysis.model, options, meter.listen)
        facts = {"data": data.name, "epochs": epochs, "rate": tuned.rate, "steps": tuned.steps}
        facts |= {name: tuned.facts[name] for name in ("samples", "held_out", "augment")} | {"seed": self.seed}
        before, after = _finite(tuned.before.loss), _finite(tuned.after.loss)
        how = "distillation and labels" if tuned.facts["labels"] else "distillation"
        return tuned.model, Step("finetune", how, "held-out loss", before, after, tuned.improved, facts)


def _recovered(recovery: Recovery, samples: Source, seed: int) -> Step:
    """Return the record of a recovery."""
    from graphprune.plan.schema import Step

    facts = {"data": samples.name, "samples": recovery.samples, "held_out": recovery.held_out, "seed": seed}
    if recovery.misfit is not None and recovery.agreement is not None:
        facts |= {"misfit": list(recovery.misfit), "agreement": list(recovery.agreement)}
    before, after = _finite(recovery.before), _finite(recovery.after)
    return Step("recover", recovery.method, "output error", before, after, recovery.improved, facts)


def _finite(value: float) -> float:
    """Return a measure as JSON can hold it."""
    return value if abs(value) < _BEYOND else _BEYOND
