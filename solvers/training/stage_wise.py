# SPDX-License-Identifier: Apache-2.0
"""Stage-wise: a supernet learns to be narrow stage by stage, and the widths of each stage are chosen by its error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphprune.array_types import Ints
from graphprune.errors import UsageError
from graphprune.rewrites.merge import inherit
from graphprune.solvers.saliency import Scores
from graphprune.solvers.training import method
from graphprune.training.batch_norm import BatchNorm
from graphprune.training.inner_values import Tap
from graphprune.training.pruning.chain_knapsack import Candidate, combine
from graphprune.training.pruning.method import Method, MethodResult
from graphprune.training.pruning.stage_costs import Stage, find_stages
from graphprune.training.pruning.taps import attach_taps
from graphprune.training.pruning.tensor_slices import find_slices, norms

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan
    from graphprune.training.gates import Gate
    from graphprune.training.hooks import Moment
    from graphprune.training.pruning.run import Run

__all__ = ["StageWise", "stage_error"]

_SMALL = 1e-12


def stage_error(narrow: Tensor, full: Tensor) -> Tensor:
    """Return the mean over samples of the squared error relative to the squared norm of what the full network gives.

    Parameters
    ----------
    narrow, full : Tensor, shape (n, ...)
    """
    error = (narrow - full).square().flatten(1).sum(1)
    return (error / full.square().flatten(1).sum(1).clamp_min(_SMALL)).mean()


@dataclass(frozen=True, eq=False)
class _Search:
    """What the search has found so far, of one stage."""

    stage: Stage
    candidates: list[Candidate]


@method("stage-wise")
class StageWise(Method):
    """Train stages of all widths at once under the full network's supervision, then search among them.

    Parameters
    ----------
    samples : int
        Random widths of one stage per step, beside the narrowest (the sandwich rule); 0 trains no supernet:
        the search then looks at the network as it is.
    until : float
        Share of the steps after which is searched; with ``samples=0`` it is at once.
    candidates : int
        Widths that are tried per stage.
    narrowest : float
        Smallest share of a group's channels.
    images : int
        Samples on which candidates are judged.

    Notes
    -----
    A narrow group has its channels with the largest norms at the start. A step trains the full network on the usual
    loss, and one stage at random at narrow widths, all others being full, on the error of what the first layer of the
    next stage reads (the last stage on the distance of the outputs). Gates make the widths, so the error of one
    stage does not depend on widths of others. Running statistics follow the full network alone; candidates are judged
    with statistics of their batch.

    Source: a reconstruction from the abstracts of Zhang et al., Effective Model Compression via Stage-wise Pruning,
    arXiv:2011.04908: stages, in-place distillation from the full network, the full and the narrowest network in every
    iteration, search by a proxy. The relative error, the knapsack, and the order of channels are ours. The sandwich
    rule is that of universally slimmable networks (Yu and Huang, ICCV 2019, arXiv:1903.05134).
    """

    def __init__(
        self,
        *,
        samples: int = 2,
        until: float = 0.5,
        candidates: int = 24,
        narrowest: float = 0.25,
        images: int = 256,
    ) -> None:
        if samples < 0 or candidates < 2 or images < 2:
            raise UsageError("stage-wise pruning needs samples >= 0, candidates >= 2 and images >= 2")
        if not 0 < until <= 1 or not 0 < narrowest < 1:
            raise UsageError("stage-wise pruning needs 0 < until <= 1 and 0 < narrowest < 1")
        self.samples = samples
        self.until = until
        self.candidates = candidates
        self.narrowest = narrowest
        self.images = images
        self._alive: dict[str, Tensor] = {}

    def begin_run(self, run: Run) -> None:
        """Find the stages, rank the channels, put gates on the groups and taps on the borders."""
        self._run = run
        analysis = run.running.analysis
        run.plan(self._ranked(run))  # says at once what cannot be reached
        self._stages = find_stages(analysis)
        if not self._stages:
            raise UsageError("no layer of the model reads or makes channels that may be removed")
        self._gates: dict[str, Gate] = run.attach()
        readers = [analysis.scope.space.costs[stage.layers[0]] for stage in self._stages[1:]]
        self._taps: list[Tap | None] = [*attach_taps(run.running.net, readers), None]

    @torch.no_grad()
    def _ranked(self, run: Run) -> Scores:
        """Rank channels by their norms, once for the whole run."""
        slices = find_slices(run.running.net, run.running.analysis)
        per_group = [norms(group, slices[group.id]).double().cpu().numpy() for group in run.groups]
        self._scores = Scores(tuple(per_group), tuple("norm of the coupled channel" for _ in per_group))
        self._order = [np.argsort(-value, kind="stable") for value in per_group]
        return self._scores

    @property
    def _last(self) -> int:
        return 1 if self.samples == 0 else max(1, round(self.until * self._run.total))

    def widths(self, stage: Stage, shares: Sequence[float]) -> tuple[int, ...]:
        """Return the widths of a stage's groups, given the share of each; one that has no gate stays whole."""
        groups = [self._run.groups[number] for number in stage.groups]
        return tuple(
            max(1, round(group.size * share)) if group.id in self._gates else group.size
            for group, share in zip(groups, shares, strict=True)
        )

    @contextmanager
    def narrowed(self, stage: Stage, widths: Sequence[int]) -> Iterator[None]:
        """Let one stage be narrow, and running statistics stay, for as long as this lasts."""
        norms_in = [item for item in self._run.task.net.module.modules() if isinstance(item, BatchNorm)]
        momenta = [item.momentum for item in norms_in]
        for item in norms_in:
            item.momentum = 0.0
        for number, width in zip(stage.groups, widths, strict=True):
            group = self._run.groups[number]
            if group.id in self._gates:
                value = torch.zeros(group.size)
                value[self._order[number][:width].copy()] = 1.0
                self._gates[group.id].value = value
        yield
        self._open()
        for item, momentum in zip(norms_in, momenta, strict=True):
            item.momentum = momentum

    def _open(self) -> None:
        for name, gate in self._gates.items():
            gate.value = self._alive.get(name, torch.ones(gate.size))

    def begin(self, moment: Moment) -> None:
        """Let the usual pass be that of the full network."""
        self._open()

    def loss(self, moment: Moment, usual: Tensor) -> Tensor:
        """Add the errors of one stage at the narrowest and some random widths."""
        if moment.step >= self._last or not self.samples or moment.outputs is None:
            return usual
        random = np.random.default_rng([self._run.task.seed, moment.step])
        number = int(random.integers(len(self._stages)))
        stage = self._stages[number]
        full = self._seen(number)
        outputs = {name: value.detach() for name, value in moment.outputs.items()}
        count = len(stage.groups)
        shares = [[self.narrowest] * count]
        shares += [random.uniform(self.narrowest, 1.0, count).tolist() for _ in range(self.samples)]
        errors = [
            self._error(number, self.widths(stage, share), moment.samples.feeds, full, outputs) for share in shares
        ]
        return usual + torch.stack(errors).mean()

    def _seen(self, number: int) -> Tensor | None:
        """Return what passed the border behind a stage; None behind the last."""
        tap = self._taps[number]
        return None if tap is None or tap.value is None else tap.value.detach()

    def _error(
        self,
        number: int,
        widths: Sequence[int],
        feeds: Mapping[str, Tensor],
        full: Tensor | None,
        outputs: Mapping[str, Tensor],
    ) -> Tensor:
        """Return how far a stage at some widths is from the full one."""
        task, tap = self._run.task, self._taps[number]
        with self.narrowed(self._stages[number], widths):
            narrow = task.net.run(feeds)
        if full is None or tap is None or tap.value is None:
            return task.objective.distance(narrow, outputs)
        return stage_error(tap.value, full)

    def stops(self, run: Run) -> tuple[int, ...]:
        """Return when is searched."""
        return (self._last,)

    def survivors(self, run: Run) -> Plan | None:
        """Judge candidates of every stage, choose one for each, and fill up what is left of the budget."""
        limit = run.plan(self._scores).budgets[0]
        if limit.metric != "flops":  # the knapsack counts these; for others the ranking decides
            run.trace.append({"stage": "search", "found": f"nothing, since {limit.metric} do not add up over stages"})
            return run.plan(self._scores)
        searches = self.judged()
        chosen = combine([item.candidates for item in searches], self._cost, limit.limit)
        if chosen is None:
            run.trace.append({"stage": "search", "found": "nothing within the budget"})
            return run.plan(self._scores)
        return self._filled(run, [item.candidates[index] for item, index in zip(searches, chosen, strict=True)])

    @torch.no_grad()
    def judged(self) -> list[_Search]:
        """Return the candidates of every stage with their errors."""
        run, task = self._run, self._run.task
        feeds = run.samples(self.images).feeds
        task.net.module.train()
        random = np.random.default_rng([task.seed, run.total])
        searches = []
        with task.on_device():
            with self.narrowed(self._stages[0], self.widths(self._stages[0], [1.0] * len(self._stages[0].groups))):
                outputs = task.net.run(feeds)
            full = [self._seen(number) for number in range(len(self._stages))]
            for number, stage in enumerate(self._stages):
                tried = sorted({self.widths(stage, shares) for shares in self._shares(len(stage.groups), random)})
                judged = [
                    Candidate(widths, float(self._error(number, widths, feeds, full[number], outputs)))
                    for widths in tried
                ]
                searches.append(_Search(stage, judged))
        task.net.module.eval()
        return searches

    def _shares(self, groups: int, random: np.random.Generator) -> Iterator[list[float]]:
        """Yield the shares of the candidates of a stage: equal ones on a grid, then random ones."""
        grid = np.linspace(self.narrowest, 1.0, max(2, self.candidates // 2))
        yield from ([float(share)] * groups for share in grid)
        for _ in range(self.candidates - len(grid)):
            yield random.choice(grid, groups).tolist()

    def _cost(self, number: int, state: tuple[int, ...], candidate: Candidate) -> tuple[int, tuple[int, ...]]:
        """Return what a stage costs, given the widths of what comes into it, and the widths of what leaves it."""
        stage = self._stages[number]
        widths: Ints = self._run.running.whole.cost.sizes.copy()
        if number:
            widths[list(self._stages[number - 1].crossing)] = state
        widths[list(stage.groups)] = candidate.widths
        return stage.cost(self._run.running.whole, widths), tuple(widths[list(stage.crossing)].tolist())

    def _filled(self, run: Run, chosen: Sequence[Candidate]) -> Plan:
        """Return a plan that starts from the chosen widths."""
        whole = run.running.whole
        kept = [np.arange(group.size, dtype=np.int64) for group in run.groups]
        for stage, candidate in zip(self._stages, chosen, strict=True):
            for number, width in zip(stage.groups, candidate.widths, strict=True):
                kept[number] = np.sort(self._order[number][:width])
        groups, _ = inherit(whole, tuple(kept), "keep")
        first = replace(run.plan(self._scores), groups=groups)
        losses = [round(candidate.loss, 6) for candidate in chosen]
        run.trace.append({"stage": "search", "errors": losses, "widths": [list(item.widths) for item in chosen]})
        return run.plan_from(first, self._scores)

    def renew(self, run: Run) -> None:
        """Go on without supernet."""
        self._gates = run.attach()
        self._alive = {name: run.open(name) for name in self._gates}

    def rest(self) -> None:
        """Open all gates of channels that are left."""
        self._open()

    def finish(self, run: Run) -> MethodResult:
        """Keep what the search has left."""
        return MethodResult(self._scores, start=run.running.plan)
