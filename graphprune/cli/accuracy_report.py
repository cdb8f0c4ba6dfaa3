# SPDX-License-Identifier: Apache-2.0
"""What is said of accuracy after pruning: what was measured; or that nothing was, and the command that does it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.cli.typed import typed_without
from graphprune.errors import InputError, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.cli.console import Talk
    from graphprune.cli.targets import Targets
    from graphprune.data.judging import AccuracyChange, Judge
    from graphprune.data.source import Source
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan, Step
    from graphprune.report.summary import Outlook

__all__ = ["NextStep", "measured_step", "original_judge", "samples_beside"]

_UNKNOWN = "SAMPLES"
"""Stands for samples in a command where the file does not tell what they look like."""
_MOST_BYTES = 64 * 2**20
_DRY = ("--dry-run",)
_MADE = ".samples.npz"
"""How `synthesize` names what it writes."""


def original_judge(original: Model, source: Source, talk: Talk, *, apart: bool) -> Judge:
    """Measure the original, and return what measures the result.

    Parameters
    ----------
    source : Source
        Samples that judge.
    apart : bool
        Whether they were set apart from others that are used. Labels of those need not be classes.
    """
    from graphprune.data.judging import Judge

    with talk.progress("measuring the original") as progress:
        judge = Judge(original, source, held_out=apart, strict=not apart, progress=progress)
    if judge.passed_over:
        talk.note(f"the labels are not compared with: {judge.passed_over}")
    return judge


def measured_step(change: AccuracyChange) -> Step:
    """Return the record of a measurement."""
    from graphprune.data.providers import current
    from graphprune.plan.schema import Step

    facts = {"data": change.data, "samples": change.samples, "held_out": change.held_out, "device": current().name}
    return Step("eval", change.measure, change.measure, change.before, change.after, applied=True, facts=facts)


@dataclass(frozen=True)
class NextStep:
    """What to type after pruning, with the names of the files at hand.

    Parameters
    ----------
    model : Path
        The original.
    targets : Targets
    plan : Path or None
        Where the plan is, or will be.
    rebind : bool
        Whether the plan was made for another model.
    calib : tuple of str
        The samples that were named, and options that say how their images are fed; empty where none were.
    """

    model: Path
    targets: Targets
    plan: Path | None
    rebind: bool = False
    calib: tuple[str, ...] = ()

    def outlook(self, loaded: Model, plan: Plan) -> Outlook:
        """Return what is not known of the result or not done to it, and the command that changes that.

        Parameters
        ----------
        loaded : Model
            The original.
        plan : Plan
            As carried out, with what followed pruning.
        """
        found = self._found(loaded, plan)
        written = self.targets.dry and not plan.is_identity
        return replace(found, command=typed_without(_DRY)) if written else found

    def _found(self, loaded: Model, plan: Plan) -> Outlook:
        from graphprune.report.summary import MEASURED, Outlook

        if plan.is_identity or plan.lossless:
            return Outlook("as before: the outputs are those of the original")
        measured = any(step.name == MEASURED for step in plan.steps)
        unmeasured = "" if measured else "unmeasured"
        if any(step.name != MEASURED for step in plan.steps):
            return Outlook() if measured else self._to_measure(loaded, unmeasured)
        found = Outlook(unmeasured, "not done: the weights that stay are as they were")
        return found if self.targets.dry or self.plan is None else self._to_recover(loaded, found)

    def _to_recover(self, loaded: Model, found: Outlook) -> Outlook:
        made = _made(loaded)
        rebind = ["--rebind"] if self.rebind else []
        options = ["--teacher", self.model, "--plan", self.plan or "", *rebind, "--calib", *(self.calib or (made,))]
        advice = "" if self.calib else f"; samples of your own in place of {quote(made)} bring back most"
        return replace(found, unrecovered=found.unrecovered + advice, command=self._command("recover", options))

    def _to_measure(self, loaded: Model, unmeasured: str) -> Outlook:
        from graphprune.report.summary import Outlook

        if self.targets.dry:
            return Outlook(unmeasured)
        made, own = _made(loaded), samples_beside(self.model, loaded)
        if own is None:
            unmeasured += f"; samples of your own in place of {quote(made)} show it, made ones do not"
        return Outlook(unmeasured, command=self._command("eval", ["--teacher", self.model, "--data", own or made]))

    def _command(self, name: str, options: Sequence[str | Path]) -> str:
        return shlex.join(["graphprune", name, str(self.targets.output), *map(str, options)])


def _made(loaded: Model) -> str:
    """Return what stands for samples where nobody has named any."""
    from graphprune.data.synthesis.make_samples import NAME, can_make

    return NAME if can_make(loaded) else _UNKNOWN


def samples_beside(path: Path, loaded: Model) -> Path | None:
    """Return arrays beside a model that begin with its name and fit it: ``digits_test.npz`` for ``digits.onnx``."""
    from graphprune.data.arrays import open_npz
    from graphprune.data.preprocessing import read_settings
    from graphprune.data.signature import input_specs

    for found in sorted(path.parent.glob("*.npz")):
        if not found.name.startswith(path.stem) or found.name.endswith(_MADE) or found.stat().st_size > _MOST_BYTES:
            continue
        try:
            open_npz(found, input_specs(loaded), read_settings(path))
        except InputError:  # samples of something else
            continue
        return found
    return None
