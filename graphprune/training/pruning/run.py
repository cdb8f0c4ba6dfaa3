# SPDX-License-Identifier: Apache-2.0
"""A run: one run of a method, as the method sees it; the network may shrink on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from graphprune.data.source import Source
from graphprune.plan.budget import BudgetRequest
from graphprune.planning.make_plan import SolveOptions, make_plan
from graphprune.training.bridge import Trainable
from graphprune.training.gates import Gate, attach_gates, gateable, tell_samples
from graphprune.training.loader import Samples
from graphprune.training.preparation import calibration, check_gradients
from graphprune.training.pruning.recover_removal import recovered
from graphprune.training.pruning.running_network import RunningNetwork, shrunk
from graphprune.training.trainer import Optimisation, Task
from graphprune.training.unfold import settle

if TYPE_CHECKING:
    from graphprune.analysis.groups import Group
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.recovery.recover_options import RecoverOptions
    from graphprune.solvers.saliency import Scores

__all__ = ["Run"]


@dataclass(eq=False)
class Run:
    """One run of a method.

    Attributes
    ----------
    running : RunningNetwork
        The network as it is now.
    task : Task
        What it learns.
    data : Source
        What it learns from; held-out samples are not among them.
    requests : tuple of BudgetRequest
    solving : SolveOptions
        How widths are chosen.
    total, step : int
        Steps of the run, and those that are done.
    recovery : RecoverOptions, optional
        How a removal is made good before training goes on; not at all by default.
    how : Optimisation
    rate : float
        How steps are made, and the highest learning rate.
    trace : list of dict
        For the record.
    """

    running: RunningNetwork
    task: Task
    data: Source
    requests: tuple[BudgetRequest, ...]
    solving: SolveOptions
    total: int
    step: int = 0
    recovery: RecoverOptions | None = None
    how: Optimisation = field(default_factory=Optimisation)
    rate: float = 0.0
    trace: list[Mapping[str, Any]] = field(default_factory=list)
    _gated: Trainable | None = None
    _gates: dict[str, Gate] = field(default_factory=dict)
    _possible: set[str] = field(default_factory=set)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the whole model."""
        return self.running.whole.groups

    def attach(self, groups: Iterable[str] | None = None) -> dict[str, Gate]:
        """Insert gates into the network, or find those that are there.

        Parameters
        ----------
        groups : iterable of str, optional
            Ids of groups of the whole model; all by default.

        Returns
        -------
        dict of str to Gate
            By the same ids. They stand where a channel is read, not where it is only passed on. A gate has one factor
            for each of ``running.atoms``. Groups have none that are not in the network any more, since a single atom
            is left of them, or that are read inside a branch or a loop.
        """
        names, net = self.running.names, self.running.net
        if self._gated is not net:
            possible = set(gateable(net, self.running.analysis))
            self._gated, self._gates = net, {}
            self._possible = {name for name, other in names.items() if other in possible}
        wanted = [name for name in (names if groups is None else groups) if name in self._possible]
        new = [names[name] for name in wanted if name not in self._gates]
        gates = attach_gates(net, self.running.analysis, new, passing=False)
        self._gates |= {name: gates[names[name]] for name in wanted if name not in self._gates}
        return {name: self._gates[name] for name in wanted}

    def apart(self, gates: Mapping[str, Gate]) -> dict[str, Gate]:
        """Return those of the gates that may have a row of factors for each sample, shape (n, size).

        In the others, samples are mixed or cannot be told apart, so their factors have to be the same for all.
        """
        with self.task.on_device():
            return tell_samples(self.running.net, gates, self.samples(3).feeds)

    def samples(self, count: int, first: int = 0) -> Samples:
        """Return samples of the data, as they are stored, so many of them or as many as there are."""
        index = np.arange(first, min(first + count, len(self.data)))
        return Samples.of(self.data.read(index)).to(self.task.device)

    def open(self, group: str) -> Tensor:
        """Return the factors that open a gate for what is left, and shut it for what is gone but not cut out."""
        return torch.from_numpy(self.running.alive(group)[self.running.atoms[group]]).float()

    def own(self, name: str, value: Tensor) -> nn.Parameter:
        """Give the network a parameter of the method's own, which the optimiser trains along."""
        parameter = nn.Parameter(value.to(self.task.device))
        self.running.net.module.register_parameter(name, parameter)
        return parameter

    def plan(self, scores: Scores, way: float = 1.0) -> Plan:
        """Choose what is to go, starting from what is gone.

        Parameters
        ----------
        scores : Scores
            For the groups of the whole model.
        way : float
            Share of the way from the full cost to the budgets, ``0 < way <= 1``.

        Raises
        ------
        BudgetUnreachableError, NothingToPruneError
            If the model cannot be made as small.
        """
        requests = self.requests
        if way < 1.0:
            budgets = self.plan(scores).budgets
            shares = [1.0 - way * (1.0 - min(1.0, item.limit / max(1, item.before))) for item in budgets]
            requests = tuple(BudgetRequest(item.metric, share) for item, share in zip(budgets, shares, strict=True))
        return make_plan(self.running.whole, requests, self.starting(self.running.plan), scores=scores)

    def plan_from(self, start: Plan, scores: Scores) -> Plan:
        """Choose what is to go, starting from what another plan removes."""
        return make_plan(self.running.whole, self.requests, self.starting(start), scores=scores)

    def starting(self, plan: Plan | None) -> SolveOptions:
        """Return how widths are chosen if a plan comes first."""
        if plan is None:
            return self.solving
        return replace(self.solving, constraints=replace(self.solving.constraints, start=plan))

    def shrink(self, plan: Plan, model: Model | None = None) -> bool:
        """Remove from the network what a plan removes, and make up for it if that is wanted.

        Parameters
        ----------
        plan : Plan
            For the whole model.
        model : Model, optional
            The whole model, by default with the weights of the network as it is. With a model given, its weights are
            what is wanted, and nothing is made up for.

        Returns
        -------
        bool
            Whether the network is a new one. Else gates have to hold shut what is gone.
        """
        self.running, before = shrunk(self.running, plan, model), self.running
        if self.running.net is before.net:
            return False
        if self.recovery is not None and model is None:
            self.running, record = recovered(before, self.running, self.data, self.recovery)
            self.trace.append({**record, "step": self.step})
        net = self.running.net
        net.module.to(self.task.device)
        self.task = replace(self.task, net=net)
        if net.unfolded:
            with self.task.on_device(), torch.no_grad():
                settle(net, calibration(self.task, self.data))
        check_gradients(self.task)
        return True
