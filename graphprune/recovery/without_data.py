# SPDX-License-Identifier: Apache-2.0
"""Recovery without data: what a pruned network lost comes back from what its file remembers.

Samples are made (:mod:`graphprune.data.synthesis`), the dense network is matched to them
(:mod:`graphprune.recovery.matched_statistics`), and pruning is recovered by least squares towards the matched network,
from which the samples' statistics are taken out again. Widths can be measured on the same samples.

Samples that somebody gives are not matched: they show how the network is used, whatever it was trained on, and even
photographs of other things than it knows gain nothing by it (resnet20: 81.6 % without, 81.3 % with it).

What was learned from made images is judged by others of another kind, of another seed: where the pruned network is
nearer to the original on them as it is, it stays as it is.

Work is bounded by a count of multiply-adds, not by a clock: the same file gives the same result on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.analysis.analysis import Analysis
from graphprune.data.evaluation import compare
from graphprune.data.feeding import whole_batches
from graphprune.data.session import Session
from graphprune.data.signature import input_specs
from graphprune.data.synthesis.blend import ANOTHER_KIND
from graphprune.data.synthesis.make_samples import SampleOptions, default_count, make_samples
from graphprune.errors import DataError, UnsupportedModelError
from graphprune.planning.solver_choice import MOST_WORK, STAGE_WISE_PASSES
from graphprune.recovery.made_samples import REFINING_PASSES, made_samples
from graphprune.recovery.matched_statistics import MatchedNetwork, match_statistics, put_back, put_in
from graphprune.recovery.recover import closer, recover
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.verification.trial import try_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphprune.data.source import Source
    from graphprune.data.synthesis.make_samples import MadeSamples
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.recovery.recover_options import Recovery

    Tell = Callable[[str, int, int], None]

__all__ = ["Restorer", "WorkBound", "automatic_restorer", "recover_matched", "restorer_for"]

_MOST_REFINED = 100_000_000_000_000
"""Where samples are refined, which only happens if somebody asks for it."""
_PASSES = 3
"""Of the network over the samples: one that matches and two that recover."""
_FEWEST = 32
_JUDGES = 128
"""Samples of another kind that judge, at most."""


@dataclass(frozen=True)
class WorkBound:
    """How much is done at most.

    Parameters
    ----------
    multiply_adds : int
    refining : int
        Forward passes over each sample that refining is worth; 0 where none is refined.
    """

    multiply_adds: int = MOST_WORK
    refining: int = 0

    def samples(self, macs: int, wanted: int, candidates: int) -> tuple[int, int, bool]:
        """Return how many samples to use, how many to make for each, and whether widths can be measured on them.

        Fewer candidates come before fewer samples, and widths that are not measured come last.

        Parameters
        ----------
        macs : int
            Multiply-adds of the network for one sample.
        """
        for measuring in (STAGE_WISE_PASSES, 0):
            for count in (wanted, max(_FEWEST, wanted // 2), _FEWEST):
                for made in (candidates, 2, 1):
                    passes = made + self.refining + _PASSES + measuring
                    if made <= candidates and count * macs * passes <= self.multiply_adds:
                        return count, made, measuring > 0
        return 0, 0, False


@dataclass(frozen=True, eq=False)
class Restorer:
    """What brings the accuracy of a pruned network back from its original's file alone.

    Attributes
    ----------
    analysis : Analysis
        Of the original.
    made : MadeSamples
    matched : MatchedNetwork or None
        None where the original remembers no statistics: its samples are used as they are.
    measures : bool
        Whether there is work left to choose widths by measuring.
    judges : MadeSamples
        Of another kind, and of another seed.
    """

    analysis: Analysis
    made: MadeSamples
    matched: MatchedNetwork | None
    measures: bool
    judges: MadeSamples
    seed: int = 0

    @property
    def dense(self) -> Analysis:
        """The analysis of the network that the samples suit: of the same groups, atoms and names as the original."""
        whole = self.analysis
        if self.matched is None:
            return whole
        return whole.of(self.matched.model)

    @property
    def facts(self) -> Mapping[str, Any]:
        """How it was done, for the record. None of it is an accuracy."""
        made = self.made
        facts: dict[str, Any] = {
            "data": made.source.name,
            "knowledge": made.knowledge,
            "samples": len(made.source),
            "made": made.made,
            "matched": self.matched is not None,
            "seed": self.seed,
        }
        if made.mismatch is not None:
            facts["mismatch"] = list(made.mismatch)
        if made.refinement is not None:
            facts["refined"] = {"passes": made.refinement.passes, "mismatch": list(made.refinement.mismatch)}
        return facts

    def recover(
        self,
        plan: Plan,
        pruned: Model,
        options: RecoverOptions | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Recovery:
        """Recover a pruned network from the made samples.

        Errors are those on made samples, between the two networks as matched to them: no measure of accuracy, and an
        agreement on them none either, so there is none. The pruned network stays as it is where the error does not
        fall, be it on these samples or on those of another kind.
        """
        options = options or RecoverOptions(samples=len(self.made.source), seed=self.seed)
        if self.matched is None:
            recovery = recover(self.analysis, plan, pruned, self.made.source, options, progress)
        else:
            recovery = recover_matched(self.analysis, plan, pruned, self.made.source, options, self.matched, progress)
        if recovery.improved and not self._holds(pruned, recovery.model):
            recovery = replace(recovery, model=pruned, improved=False)
        return replace(recovery, misfit=None, agreement=None)

    def _holds(self, pruned: Model, recovered: Model) -> bool:
        """Whether a recovered network is nearer to the original on samples of another kind, too."""
        before, after = (compare(self.analysis.model, one, self.judges.source) for one in (pruned, recovered))
        return closer(before, after)


def restorer_for(
    analysis: Analysis, options: SampleOptions | None = None, bound: WorkBound | None = None, tell: Tell | None = None
) -> Restorer:
    """Make samples for a network, and match it to them.

    Parameters
    ----------
    analysis : Analysis
        Of the original.
    options : SampleOptions, optional
        Sizes that are open are those of the analysis by default.
    bound : WorkBound, optional
    tell : callable, optional
        Called with what is being done, how much of it is done, and how much there is to do.

    Raises
    ------
    DataError
        If the file does not tell what an input may be, or the network is too large for the bound.
    UnsafeModelError
        If a run takes more memory or time than a model of this size may.
    UsageError, UnsupportedModelError
        If samples are to be refined, and torch is missing or cannot run the network.
    """
    try_in_child(analysis)
    options = options or SampleOptions()
    options = replace(options, shapes=options.shapes or analysis.input_shapes)
    macs = analysis.cost.flops(analysis.cost.sizes) // 2
    wanted = options.count or default_count(_shapes(analysis))
    if bound is None:
        bound = WorkBound() if options.quality == "fast" else WorkBound(_MOST_REFINED, REFINING_PASSES)
    count, candidates, measures = bound.samples(macs, wanted, options.candidates)
    if not count:
        raise DataError(
            f"{_FEWEST} made samples of {macs} multiply-adds each are more work than the bound allows",
            hint="give samples of your own with --calib, or ask for made ones with --calib synthetic:N",
        )
    options = replace(options, count=count, candidates=candidates)
    made = made_samples(analysis.model, options, tell)
    if made.mismatch is not None and not np.isfinite(made.mismatch).all():
        raise DataError("the network gives values that are not finite on whatever samples are made")
    matched = match_statistics(analysis.model, made.source, _told(tell, "matching statistics"))
    judging = replace(options, count=min(_JUDGES, len(made.source)), candidates=1, seed=options.seed + 1)
    judges = make_samples(analysis.model, replace(judging, quality="fast", shares=ANOTHER_KIND))
    return Restorer(analysis, made, matched, measures, judges, options.seed)


def automatic_restorer(
    analysis: Analysis, seed: int = 0, bound: WorkBound | None = None, tell: Tell | None = None
) -> tuple[Restorer | None, str]:
    """Return what is done for a network where nobody asks for anything, and why it is that.

    With statistics of its training data in the file, samples are made and matched; without them, images of natural
    statistics are used as they are, if images are all that it takes; else nothing is done.
    """
    try:
        restorer = restorer_for(analysis, SampleOptions(seed=seed), bound, tell)
        _try_out(analysis.model, restorer.made.source)
    except (DataError, UnsupportedModelError) as error:
        return None, error.message
    if restorer.matched is not None:
        return restorer, "made samples, matched to the statistics that the file keeps of its training data"
    if all(kind == "images" for kind in restorer.made.kinds.values()):
        return restorer, "made images; the file keeps no statistics of its training data"
    return None, "the file keeps no statistics of its training data, and not all of its inputs are images"


def recover_matched(
    analysis: Analysis,
    plan: Plan,
    pruned: Model,
    source: Source,
    options: RecoverOptions,
    matched: MatchedNetwork,
    progress: Callable[[int, int], None] | None = None,
) -> Recovery:
    """Recover a pruned network against a matched dense one, and give it back its own statistics.

    Where the error on held-out samples does not fall, the pruned network is returned as it was.
    """
    dressed = put_in(matched, pruned, analysis, plan)
    recovery = recover(analysis, plan, dressed, source, options, progress, teacher=matched.model)
    return replace(recovery, model=put_back(matched, recovery.model, analysis, plan) if recovery.improved else pruned)


def _try_out(model: Model, source: Source) -> None:
    """Run a whole network once, so that what cannot be run is known before anything depends on it."""
    first = whole_batches(source, input_specs(model), 1)[0]
    Session(model).run(dict(source.read(first).feeds))


def _shapes(analysis: Analysis) -> dict[str, tuple[int, ...]]:
    """Return the concrete shapes of the inputs."""
    return {name: tuple(analysis.shapes.dims[name]) for name in analysis.graph.inputs if name in analysis.shapes.dims}


def _told(tell: Tell | None, what: str) -> Callable[[int, int], None] | None:
    return None if tell is None else lambda done, total: tell(what, done, total)
