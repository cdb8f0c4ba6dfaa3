# SPDX-License-Identifier: Apache-2.0
"""What pruning while training is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphprune.analysis.analysis import Analysis
from graphprune.model.load import Model
from graphprune.plan.schema import Plan
from graphprune.planning.make_plan import SolveOptions
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.training.finetune_options import FinetuneOptions
from graphprune.training.long_run import Listener, ignore_report
from graphprune.training.trainer import Measure

__all__ = ["TrainOptions", "Trained"]


@dataclass(frozen=True)
class TrainOptions:
    """How a network is pruned while it trains.

    Parameters
    ----------
    training : FinetuneOptions
        Epochs, rate, batch and the rest; `regularize` has no meaning here.
    solving : SolveOptions
        How widths are chosen.
    teacher : Model, optional
        Whose outputs are learned. Where there are no labels, it is the model as it was.
    recovery : RecoverOptions, optional
        How every removal is made good, from the samples that are learned from; None for not at all.
    listen : callable, optional
        Is told how far the run is.
    """

    training: FinetuneOptions = field(default_factory=lambda: FinetuneOptions(epochs=5.0))
    solving: SolveOptions = field(default_factory=SolveOptions)
    teacher: Model | None = None
    recovery: RecoverOptions | None = field(default_factory=RecoverOptions)
    listen: Listener = ignore_report


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a run.

    Attributes
    ----------
    analysis : Analysis
        Of the trained model: the whole one, with all channels.
    plan : Plan
        What to remove from it.
    before, after : Measure
        On held-out samples: the model as it was, and the network as it ended, whatever is still in it.
    pruned : bool
        Whether all that the plan removes was gone from the network when it ended.
    facts : dict of str to object
        What was chosen: losses, samples, steps.
    main : bool
        Whether this is the process that writes.
    further : mapping of str to Model
        Other models that came of it, such as one with gates, by a word for the name of their files.
    """

    analysis: Analysis
    plan: Plan
    before: Measure
    after: Measure
    facts: dict[str, object]
    pruned: bool = False
    main: bool = True
    further: Mapping[str, Model] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        """The trained model."""
        return self.analysis.model
