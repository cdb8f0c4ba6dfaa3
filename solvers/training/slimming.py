# SPDX-License-Identifier: Apache-2.0
"""Slimming: channels are drawn towards zero while the network trains, and what got smallest goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from graphprune.solvers.saliency import Scores
from graphprune.solvers.training import method
from graphprune.training.pruning.method import Method, MethodResult
from graphprune.training.pruning.regularize import STRENGTH, Regularizer

if TYPE_CHECKING:
    from graphprune.training.hooks import Moment
    from graphprune.training.pruning.run import Run

__all__ = ["Slimming"]


@method("slimming")
class Slimming(Method):
    """Train under a regulariser, then remove by scale or norm.

    Parameters
    ----------
    regularize : {"bn-l1", "group-norm", "growing"}
        See :class:`graphprune.training.pruning.regularize.Regularizer`. ``growing`` draws at the channels that a plan
        by norms removes before training.
    strength : float
        0 for that of the regulariser.

    Notes
    -----
    A channel's score is the mean magnitude of its BatchNormalization scales with ``bn-l1``, else the norm of all that
    makes and reads it. Scales are compared over the whole network as they are where every group has some.

    Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    arXiv:1708.06519.
    """

    def __init__(self, *, regularize: str = "bn-l1", strength: float = 0.0) -> None:
        self.regularize = regularize
        self.strength = strength

    def begin_run(self, run: Run) -> None:
        """Choose the regulariser; for ``growing``, what is going to go."""
        net, analysis = run.running.net, run.running.analysis
        strength = self.strength or STRENGTH.get(self.regularize)
        self.regularizer = Regularizer(net, analysis, self.regularize, strength)
        if self.regularize == "growing":
            plan = run.plan(self.scores())
            for group in plan.groups:
                going = np.ones(group.size, dtype=np.bool_)
                going[list(group.kept)] = False
                self.regularizer.going[group.id] = going

    def rewrite(self, moment: Moment) -> None:
        """Add the gradient of the penalty."""
        self.regularizer.rewrite(moment)

    @torch.no_grad()
    def scores(self) -> Scores:
        """Return what the weights say now."""
        per_group, source = [], []
        for group in self.regularizer.groups:
            scales = self.regularizer.scales(group.id) if self.regularize == "bn-l1" else None
            strengths = self.regularizer.norm(group.id) if scales is None else scales
            per_group.append(strengths.detach().double().cpu().numpy())
            source.append("norm of the coupled channel" if scales is None else "BatchNormalization scale")
        return Scores(tuple(per_group), tuple(source), comparable=set(source) == {"BatchNormalization scale"})

    def finish(self, run: Run) -> MethodResult:
        """Score channels by the trained weights."""
        return MethodResult(self.scores())
