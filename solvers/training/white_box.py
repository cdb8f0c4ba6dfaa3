# SPDX-License-Identifier: Apache-2.0
"""White-Box: every class learns which channels it wants, and the channels that few want go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.errors import BudgetUnreachableError, UsageError
from graphprune.solvers.saliency import Scores
from graphprune.solvers.training import method
from graphprune.training.checkpoint import take
from graphprune.training.pruning.fold_gates import fold_factors, foldable_groups, of_what_stays
from graphprune.training.pruning.method import Method, MethodResult

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan
    from graphprune.training.gates import Gate
    from graphprune.training.hooks import Moment
    from graphprune.training.pruning.run import Run

__all__ = ["WhiteBox", "draw_classes", "expected_factor", "factors"]

_SHOWN = 20_000
"""Votes that a plan records at most, each by itself."""
_LEADING = 3
"""Classes that want a channel most, and are recorded in any case."""


def draw_classes(labels: Tensor, classes: int) -> Tensor:
    """Return how much each class has to say of each sample, shape (n, classes): its own fully, others by chance."""
    drawn = torch.rand((len(labels), classes), device=labels.device)
    return drawn.scatter(1, labels.long()[:, None], 1.0)


def factors(drawn: Tensor, masks: Tensor) -> Tensor:
    """Return the factor of every channel for every sample, shape (n, channels).

    Divided by what it is at first, so that a network whose masks are all 1 computes on average what it did.

    Parameters
    ----------
    drawn : Tensor, shape (n, classes)
    masks : Tensor, shape (classes, channels)
    """
    return drawn.to(masks.dtype) @ masks / (0.5 * (masks.shape[0] + 1))


def expected_factor(masks: Tensor) -> Tensor:
    """Return the mean factor over samples of all classes alike, shape (channels,).

    For a sample of class y the factor is ``m_y + 1/2 * sum of the other classes' masks`` on average.
    """
    classes = masks.shape[0]
    return (masks.mean(0) + 0.5 * (masks.sum(0) - masks.mean(0))) / (0.5 * (classes + 1))


@method("white-box")
class WhiteBox(Method):
    """Learn a mask per class and channel; the sum of a channel's masks is its vote, compared over the whole network.

    Parameters
    ----------
    sparsity : float
        Weight of the sum over groups of the norm of the masks, summed over classes.
    until : float
        Share of the steps after which the vote is held; then masks are folded into the weights of who reads the
        channels, what loses is cut out, and training goes on without masks.
    least : float
        Share of its channels that every group keeps.

    Notes
    -----
    A mask acts on the value that is read, behind the activation, and on all readers alike; so it can be
    folded into their weights whatever its sign. A group that is also read by something without weights gets no mask,
    and the mean vote of the others.

    Source: Zhang et al., Carrying out CNN Channel Pruning in a White Box, arXiv:2104.11883, in a clean version: one
    mask per coupled group instead of one per layer, at the consumers instead of before or behind BatchNormalization,
    the expected factor folded instead of half of the sum, and a vote that ends exactly at the budget instead of in
    steps of a hundredth. The paper starts from random weights, and its masks are not divided by their first sum.
    """

    labelled = True

    def __init__(self, *, sparsity: float = 5e-4, until: float = 1 / 3, least: float = 0.3) -> None:
        if sparsity < 0:
            raise UsageError(f"the weight of the masks' norm is {sparsity:g}, but must not be negative")
        if not 0 < until <= 1:
            raise UsageError(f"a vote cannot be held after {until:g} of the steps")
        if not 0 <= least < 1:
            raise UsageError(f"groups cannot keep at least {least:g} of their channels")
        self.sparsity = sparsity
        self.until = until
        self.least = least
        self._masks: dict[str, nn.Parameter] = {}
        self._gates: dict[str, Gate] = {}
        self._votes: dict[str, Tensor] = {}
        self._open: dict[str, Tensor] = {}

    def begin_run(self, run: Run) -> None:
        """Give every group its masks."""
        self._run = run
        objective = run.task.objective
        if objective.labelled is None:
            raise UsageError(
                "the method 'white-box' needs scores of classes, and no output of the model has any",
                hint="choose another method",
            )
        limits = run.solving.constraints
        most = min(limits.max_prune, 1.0 - self.least)
        run.solving = replace(run.solving, constraints=replace(limits, max_prune=most))
        self._reachable(run)
        with torch.no_grad(), run.task.on_device():
            classes = run.task.net.run(run.samples(2).feeds)[objective.labelled].shape[1]
        masked = foldable_groups(run.running.net, run.running.analysis)
        if not masked:
            raise UsageError("no group of the model can be masked: none is read by weights alone")
        self._gates = run.apart(run.attach(masked))
        if not self._gates:
            raise UsageError("the samples of a batch cannot be told apart inside the model, so they have no own masks")
        self._masks = {
            name: run.own(f"mask_{name}", torch.ones((classes, gate.size))) for name, gate in self._gates.items()
        }

    def _reachable(self, run: Run) -> None:
        ones = tuple(np.ones(group.size) for group in run.groups)
        try:
            run.plan(Scores(ones, ("",) * len(ones), comparable=True))
        except BudgetUnreachableError as error:
            hint = f"every group keeps {self.least:.0%} of its channels here: --set least=0.1 would let more go"
            raise BudgetUnreachableError(error.message, hint=hint) from error

    @property
    def _last(self) -> int:
        return max(1, round(self.until * self._run.total))

    def begin(self, moment: Moment) -> None:
        """Mask every sample by its class and some others."""
        if moment.step >= self._last or moment.samples.labels is None:
            self.rest()
            return
        classes = next(iter(self._masks.values())).shape[0]
        drawn = draw_classes(moment.samples.labels, classes)
        for name, gate in self._gates.items():
            gate.value = factors(drawn, self._masks[name])

    def loss(self, moment: Moment, usual: Tensor) -> Tensor:
        """Add the norm of the summed masks."""
        if moment.step >= self._last or not self.sparsity:
            return usual
        norms = [mask.sum(0).norm() for mask in self._masks.values()]
        return usual + self.sparsity * torch.stack(norms).sum()

    def rest(self) -> None:
        """Mask all samples alike, by the expected factor."""
        for name, gate in self._gates.items():
            gate.value = self._open[name] if self._open else expected_factor(self._masks[name].detach())

    def stops(self, run: Run) -> tuple[int, ...]:
        """Return when the vote is held."""
        return (self._last,)

    def survivors(self, run: Run) -> Plan | None:
        """Count the votes, fold the masks into the weights, and say what loses."""
        self._votes = {name: mask.detach().cpu().clone() for name, mask in self._masks.items()}
        factors = {name: expected_factor(mask).to(run.task.device) for name, mask in self._votes.items()}
        plan = run.plan(self.scores())
        fold_factors(run.running.net, run.running.analysis, of_what_stays(factors, plan))
        return plan

    def renew(self, run: Run) -> None:
        """Go on without masks."""
        self._gates = run.attach()
        self._open = {name: run.open(name) for name in self._gates}

    def scores(self) -> Scores:
        """Return the magnitudes of the votes; they are compared as they are."""
        strengths = {name: mask.sum(0).abs().double().numpy() for name, mask in self._votes.items()}
        mean = float(np.mean(np.concatenate(list(strengths.values()))))
        per_group = tuple(strengths.get(group.id, np.full(group.size, mean)) for group in self._run.groups)
        source = tuple("votes" if group.id in strengths else "mean vote" for group in self._run.groups)
        return Scores(per_group, source, comparable=True)

    def finish(self, run: Run) -> MethodResult:
        """Keep what the vote left."""
        return MethodResult(self.scores(), start=run.running.plan, trace=self._record())

    def _record(self) -> tuple[dict[str, Any], ...]:
        """Return what `inspect --votes` shows, a row per channel: all votes where they are few enough, else who led."""
        votes = {name: mask.double().numpy() for name, mask in self._votes.items()}
        means = np.concatenate(list(votes.values()), axis=1).mean(1, keepdims=True)
        whole = sum(mask.size for mask in votes.values()) <= _SHOWN
        names = self._run.data.classes
        entries: list[dict[str, Any]] = [{"stage": "classes", "names": list(names)}] if names else []
        for name, mask in votes.items():
            entry = {
                "stage": "votes",
                "group": name,
                "classes": len(mask),
                "sum": np.round(mask.sum(0), 5).tolist(),
                "wanted": (mask > means).sum(0).tolist(),
                "most": np.argsort(-mask, axis=0, kind="stable")[:_LEADING].T.tolist(),
            }
            entries.append(entry | ({"by_class": np.round(mask.T, 6).tolist()} if whole else {}))
        return tuple(entries)

    def tensors(self) -> dict[str, Tensor]:
        """Return masks and votes."""
        masks = {f"mask/{name}": mask.detach() for name, mask in self._masks.items()}
        return masks | {f"vote/{name}": value for name, value in self._votes.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up masks and votes."""
        for name, mask in self._masks.items():
            with torch.no_grad():
                mask.copy_(tensors[f"mask/{name}"])
        self._votes = {
            name: take(tensors, f"vote/{name}", mask) for name, mask in self._masks.items() if f"vote/{name}" in tensors
        }
