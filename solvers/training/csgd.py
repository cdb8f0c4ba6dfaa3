# SPDX-License-Identifier: Apache-2.0
"""Centripetal SGD: channels of a cluster are drawn together while the network trains, until all but one can go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from graphprune.array_types import Ints
from graphprune.errors import UsageError, quote
from graphprune.rewrites.merge import exact_merges
from graphprune.rewrites.paths import atom_positions, find_paths
from graphprune.rewrites.readers import Sites
from graphprune.solvers.saliency import Scores
from graphprune.solvers.training import method
from graphprune.solvers.training._kmeans import even, kmeans
from graphprune.training.learning_rate import rate_at
from graphprune.training.pruning.method import Method, MethodResult
from graphprune.training.pruning.tensor_slices import find_slices, norms
from graphprune.training.pruning.ties import Ties, pull_for
from graphprune.training.trainer import measure

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis
    from graphprune.analysis.groups import Group
    from graphprune.plan.schema import Plan
    from graphprune.rewrites.paths import Path
    from graphprune.training.bridge import Trainable
    from graphprune.training.hooks import Moment
    from graphprune.training.pruning.run import Run

__all__ = ["CentripetalSGD", "features", "why_apart"]


_STEEPEST = 0.1
"""Largest product of rate and pull: beyond it, a step with momentum would overshoot."""
_WAYS = ("kmeans", "even")


@method("csgd")
class CentripetalSGD(Method):
    """Cluster the channels of each group, tie what makes them, and merge each cluster in the end.

    Widths come first, from the norms of channels; each group then has as many clusters as channels are to stay. After
    the last step clusters are made equal and merged, which changes nothing that the network computes: the plan is
    lossless, and held to the outputs of the trained network.

    Parameters
    ----------
    clusters : {"kmeans", "even"}
        By the likeness of filters, or neighbours.
    pull : float
        Strength of the centripetal term, in units of weight decay; 0 for what brings clusters together to `tolerance`.
    tolerance : float
        Which part of their distance is to be left after the last step.
    vectors : float
        Factor on `pull` for biases, scales and shifts. The authors' code has 0.1, for long runs.

    Notes
    -----
    Where operators between makers and readers do not treat channels alike, or a constant that is not trained differs
    between them, a group is not tied: channels of least norm go from it as they are. `pull` acts on gradients, so the
    optimiser must be SGD. Its weight decay is that of the rule.

    Source: Ding et al., Centripetal SGD for Pruning Very Deep Convolutional Networks With Complicated Structure,
    CVPR 2019, arXiv:1904.03837. One clustering per coupled group, on the normalised rows of all its makers, takes the
    place of the paper's pacesetter; the default of `pull` is ours.
    """

    solver = "uniform"
    exact = True

    def __init__(
        self, *, clusters: str = "kmeans", pull: float = 0.0, tolerance: float = 1e-4, vectors: float = 1.0
    ) -> None:
        if clusters not in _WAYS:
            raise UsageError(f"clusters cannot be {quote(clusters)}: there are {', '.join(_WAYS)}")
        if not (0 < tolerance < 1 and pull >= 0 and vectors >= 0):
            raise UsageError("csgd needs a tolerance between 0 and 1, and neither pull nor vectors below 0")
        self.clusters = clusters
        self.pull = pull
        self.tolerance = tolerance
        self.vectors = vectors

    def begin_run(self, run: Run) -> None:
        """Choose widths and clusters."""
        if run.how.optimizer != "sgd":
            raise UsageError("csgd acts on gradients, and needs --optimizer sgd", hint="choose another method")
        self._net, analysis = run.running.net, run.running.analysis
        self._target = run.plan(self._scores(analysis))
        paths = find_paths(analysis, Sites(analysis))
        clusters: dict[str, Ints] = {}
        for number, (group, path, planned) in enumerate(zip(analysis.groups, paths, self._target.groups, strict=True)):
            width = len(planned.kept)
            why = why_apart(self._net, group, path) if width < group.size else "all channels stay"
            if not why:
                clusters[group.id] = self._clustered(analysis, number, width, run.solving.seed)
            run.trace.append({"stage": "clusters", "group": group.id, "width": width, "tied": not why, "why": why})
        self.ties = Ties(self._net, analysis, clusters)
        self._strength = self.pull or self._enough(run)

    def rewrite(self, moment: Moment) -> None:
        """Replace the gradients."""
        self.ties.rewrite(self._strength, vectors=self.vectors)

    def finish(self, run: Run) -> MethodResult:
        """Make clusters equal; of each, the first channel stays."""
        left = self.ties.project()
        reached = measure(run.task)
        scores = self._scores(run.running.analysis)
        kept = [
            np.unique(self.ties.clusters[group.id], return_index=True)[1].tolist()
            if group.id in self.ties.clusters
            else list(group.kept)
            for group in self._target.groups
        ]
        groups = tuple(
            replace(group, kept=tuple(sorted(own))) for group, own in zip(self._target.groups, kept, strict=True)
        )
        trace = {
            "stage": "projection",
            "pull": self._strength,
            "deviation": left,
            "loss": reached.loss,
            "accuracy": reached.accuracy,
        }
        return MethodResult(scores, replace(self._target, groups=groups), trace=(trace,))

    def settle(self, analysis: Analysis, plan: Plan) -> Plan:
        """Merge what is equal; a plan that removes nothing else is lossless."""
        return exact_merges(analysis, plan)

    def _clustered(self, analysis: Analysis, number: int, width: int, seed: int) -> Ints:
        if self.clusters == "even":
            return even(analysis.groups[number].size, width)
        return kmeans(features(analysis, analysis.groups[number]), width, seed)

    @torch.no_grad()
    def _scores(self, analysis: Analysis) -> Scores:
        slices = find_slices(self._net, analysis)
        per_group = tuple(norms(group, slices[group.id]).double().cpu().numpy() for group in analysis.groups)
        return Scores(per_group, ("norm of the coupled channel",) * len(per_group))

    def _enough(self, run: Run) -> float:
        """Return the pull that the deviation law asks for, as far as steps with momentum follow it."""
        how, total = run.how, run.total
        rates = sum(rate_at(step, total, run.rate, int(how.warmup * total)) for step in range(total))
        return min(pull_for(self.tolerance, rates, how.momentum, how.weight_decay), _STEEPEST / run.rate)


def why_apart(net: Trainable, group: Group, path: Path) -> str:
    """Return why the channels of a group cannot be tied, nothing where they can."""
    if path.grade == "none":
        return path.why
    inserted = {net.graph.nodes[index].inputs[2] for index in net.unfolded}
    for member in group.members:
        if member.role != "in" and member.initializer not in net.paths and member.initializer not in inserted:
            return f"{quote(member.initializer)} is not trained"
    return ""


def features(analysis: Analysis, group: Group) -> npt.NDArray[np.float64]:
    """Return what makes each atom, the rows of each maker in units of their mean norm; shape (size, features)."""
    parts = []
    for member in group.members:
        places = atom_positions(member, group.size)
        array = analysis.read(member.initializer)
        if member.role == "in" or places is None or array.ndim < 2:
            continue
        rows = np.moveaxis(array, member.axis, 0)[places.ravel()].astype(np.float64).reshape(group.size, -1)
        scale = float(np.linalg.norm(rows, axis=1).mean())
        parts.append(rows / scale if scale > 0 else rows)
    return np.concatenate([np.zeros((group.size, 1)), *parts], axis=1)
