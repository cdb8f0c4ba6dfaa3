# SPDX-License-Identifier: Apache-2.0
"""What `solve` can do after pruning: recover without training, then finetune."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from graphprune.errors import UsageError

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.cli.console import Talk
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan, Step
    from graphprune.recovery.recover_options import Recovery

__all__ = ["RecoveryMethod", "Restoration", "Restoring"]


_BEYOND = 1e299  # stands for infinity and for what is no number


class RecoveryMethod(StrEnum):
    """How accuracy is brought back without training."""

    least_squares = "least-squares"
    bn = "bn"
    bias = "bias"


@dataclass(frozen=True)
class Restoring:
    """How accuracy is brought back."""

    recover: Annotated[
        RecoveryMethod | None,
        typer.Option(help="Bring accuracy back without training, from the samples of --calib.", show_default=False),
    ] = None
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Then let it learn from the original (see `graphprune finetune`).")
    ] = False
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Samples to learn from; those of --calib by default.", show_default=False),
    ] = None
    epochs: Annotated[
        float | None, typer.Option(help="Passes of --finetune over them. [default: 2]", min=0.0, show_default=False)
    ] = None

    @property
    def reads_calib(self) -> bool:
        """Whether the samples of ``--calib`` are read after pruning."""
        return self.recover is not None or (self.finetune and self.data is None)

    def check(self, calib: str | None) -> None:
        """Refuse what cannot be done, before anything is.

        Raises
        ------
        UsageError
            If there is nothing to recover or to learn from, or data that nobody reads.
        """
        if self.recover is not None and calib is None:
            raise UsageError("--recover needs samples", hint="give some with --calib SOURCE; labels are not needed")
        if self.finetune and self.data is None and calib is None:
            raise UsageError("--finetune needs samples", hint="give some with --data SOURCE or --calib SOURCE")
        if self.epochs is not None and not self.finetune:
            raise UsageError("--epochs is how long --finetune learns", hint="add --finetune, or leave it out")
        if self.data is not None and not self.finetune:
            raise UsageError("--data is what --finetune learns from", hint="add --finetune, or give --calib SOURCE")


@dataclass(frozen=True)
class Restoration:
    """The steps that are wanted, with their samples.

    Parameters
    ----------
    wanted : Restoring
    seed : int
    samples : Source, optional
        Of ``--calib``.
    lessons : Source, optional
        Of ``--data``.
    """

    wanted: Restoring
    seed: int
    samples: Source | None
    lessons: Source | None

    def __call__(self, analysis: Analysis, plan: Plan, pruned: Model, talk: Talk) -> tuple[Model, tuple[Step, ...]]:
        """Return the model after all steps, and what each of them brought."""
        from graphprune import accuracy
        from graphprune.recovery.recover_options import RecoverOptions

        steps: list[Step] = []
        if plan.is_identity:
            talk.note("nothing is removed, so there is nothing to bring back")
            return pruned, ()
        if self.wanted.recover is not None and self.samples is not None:
            options = RecoverOptions(method=self.wanted.recover.value, seed=self.seed)
            with talk.progress("recovering") as progress:
                found = accuracy.recover(analysis, pruned, plan, self.samples, options, progress=progress)
            pruned = found.model
            steps.append(_recovered(found, self.samples, self.seed))
        lessons = self.lessons or self.samples
        if self.wanted.finetune and lessons is not None:
            pruned, step = self._finetune(analysis, pruned, lessons, talk)
            steps.append(step)
        return pruned, tuple(steps)

    def _finetune(self, analysis: Analysis, pruned: Model, lessons: Source, talk: Talk) -> tuple[Model, Step]:
        from graphprune.cli.progress import ProgressLine
        from graphprune.plan.schema import Step

        with talk.stage("importing torch"):
            from graphprune.training.finetune import FinetuneOptions
            from graphprune.training.finetune import finetune as train
        meter = ProgressLine()
        epochs = FinetuneOptions.epochs if self.wanted.epochs is None else self.wanted.epochs
        options = FinetuneOptions(epochs=epochs, seed=self.seed)
        with talk.stage("finetuning"), meter:
            found = train(pruned, lessons, analysis.model, options, meter.listen)
        facts = {"data": lessons.name, "epochs": epochs, "rate": found.rate, "steps": found.steps}
        facts |= {name: found.facts[name] for name in ("samples", "held_out", "augment")} | {"seed": self.seed}
        before, after = _finite(found.before.loss), _finite(found.after.loss)
        how = "distillation and labels" if found.facts["labels"] else "distillation"
        return found.model, Step("finetune", how, "held-out loss", before, after, found.improved, facts)


def _recovered(found: Recovery, samples: Source, seed: int) -> Step:
    """Return the record of a recovery."""
    from graphprune.plan.schema import Step

    facts = {"data": samples.name, "samples": found.samples, "held_out": found.held_out, "seed": seed}
    if found.misfit is not None and found.agreement is not None:
        facts |= {"misfit": list(found.misfit), "agreement": list(found.agreement)}
    before, after = _finite(found.before), _finite(found.after)
    return Step("recover", found.method, "output error", before, after, found.improved, facts)


def _finite(value: float) -> float:
    """Return a measure as JSON can hold it."""
    return value if abs(value) < _BEYOND else _BEYOND
