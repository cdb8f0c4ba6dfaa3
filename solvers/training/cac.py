# SPDX-License-Identifier: Apache-2.0
"""CAC: what a network would lose without a channel is measured while it trains, and the least missed go gradually."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphprune.errors import UsageError
from graphprune.solvers.registry import one_of
from graphprune.solvers.saliency import Scores
from graphprune.solvers.training import method
from graphprune.training.pruning.cost_schedule import CostSchedule
from graphprune.training.pruning.method import Method, MethodResult

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan
    from graphprune.training.gates import Gate
    from graphprune.training.hooks import Moment
    from graphprune.training.pruning.run import Run

__all__ = ["Cac", "standard_error"]


def standard_error(deviation: float, off: float, samples: float) -> float:
    """Return the standard error of the Monte Carlo estimate after a number of samples.

    Parameters
    ----------
    deviation : float
        Of what is averaged: correctness, or the loss.
    off : float
        Probability that a gate is shut.

    Examples
    --------
    >>> round(standard_error(0.48, 0.1, 20_000), 3)
    0.011
    """
    return deviation * float(np.sqrt(1.0 / (off * samples) + 1.0 / ((1.0 - off) * samples)))


@method("cac")
class Cac(Method):
    """Remove the channels with the lowest conditional accuracy change, in steps.

    Parameters
    ----------
    estimator : {"monte-carlo", "first-order"}
        ``monte-carlo``: gates are shut at random for each sample; the change is the mean of what is gained over the
        samples that have the channel, minus that over those that do not. ``first-order``: minus the derivative of the
        loss with respect to the gate, which needs no chance and has far less noise, but says nothing as long as the
        network still gives what its teacher gives.
    gain : {"loss", "accuracy"}
        What is gained, for ``monte-carlo``: minus the loss, or whether the class is right (which needs labels).
    off : float
        Probability that a gate is shut, for ``monte-carlo``.
    decay : float
        Of the moving averages, per step.
    schedule : {"cubic", "linear"}
        How the cost falls; see :class:`graphprune.training.pruning.cost_schedule.CostSchedule`.
    until : float
        Share of the steps after which the budget is reached.
    times : int
        How often channels go.

    Notes
    -----
    The first epoch is for measuring alone, or half of the time until the last removal, if that is less. Channels that
    are gone are cut out of the running network wherever that is possible. A gate sits at every place that reads the
    channel, so that a shut one is a removed channel; it is never one of the network's outputs.

    Source: a reconstruction from the abstract of the paper that introduced conditional accuracy change: a channel is
    judged by the change of accuracy on condition that it is disabled, by two criteria that are not spelt out there,
    gradually and early in training. Both estimates, the probabilities and the schedule are ours. Double-and-prune
    (DCPH) is this method on a network that was made twice as wide, with the original's cost as the budget.
    """

    def __init__(
        self,
        *,
        estimator: str = "monte-carlo",
        gain: str = "loss",
        off: float = 0.1,
        decay: float = 0.99,
        schedule: str = "cubic",
        until: float = 1 / 3,
        times: int = 4,
    ) -> None:
        one_of("estimator", estimator, ("first-order", "monte-carlo"))
        one_of("gain", gain, ("loss", "accuracy"))
        if not 0 < off < 1:
            raise UsageError(f"a gate cannot be shut with probability {off:g}")
        if not 0 <= decay < 1:
            raise UsageError(f"a moving average cannot have the decay {decay:g}")
        CostSchedule(schedule, 0.0, until, times)
        self.estimator = estimator
        self.gain = gain
        self.off = off
        self.decay = decay
        self.schedule = schedule
        self.until = until
        self.times = times
        self._gates: dict[str, Gate] = {}
        self._measured: dict[str, Gate] = {}
        self._averages: dict[str, Tensor] = {}

    def begin_run(self, run: Run) -> None:
        """Put a gate on every group."""
        task = run.task
        if self.gain == "accuracy" and (task.objective.labelled is None or self.estimator == "first-order"):
            raise UsageError("gain=accuracy needs labels, and estimator=monte-carlo")
        warm = min(task.loader.steps / run.total, self.until / 2)
        self._plan = CostSchedule(self.schedule, warm, self.until, self.times)
        # rows: sum of gains with the gate open, samples with it open, and both with it shut
        self._averages = {group.id: torch.zeros((4, group.size), dtype=torch.float64) for group in run.groups}
        self._last = self._plan.steps(run.total)[-1]
        self.renew(run)
        if not self._gates:
            raise UsageError("no group of the model can have a gate, so nothing can be measured")
        self._gated = frozenset(self._measured)
        if self.estimator == "monte-carlo":
            self._try(run)

    def _try(self, run: Run) -> None:
        """Refuse a network in which samples cannot have gates of their own."""
        task = run.task
        samples = run.samples(2)
        if not self._measured:
            raise UsageError(
                "the samples of a batch cannot be told apart inside the model", hint="use --set estimator=first-order"
            )
        try:
            with torch.no_grad(), task.on_device():
                task.objective.each(task.net.run(samples.feeds), task.teach(samples), samples.labels)
        except UsageError as error:
            raise UsageError(error.message, hint="use --set estimator=first-order") from error

    def renew(self, run: Run) -> None:
        """Put gates on the network as it is."""
        self._run = run
        self._gates = run.attach()
        self._open = {name: run.open(name) for name in self._gates}
        self._measured = self._gates if self.estimator == "first-order" else run.apart(self._gates)

    def begin(self, moment: Moment) -> None:
        """Shut gates at random, or watch their gradients; after the last removal they are just open."""
        for name, gate in self._gates.items():
            alive = self._open[name]
            if moment.step >= self._last or name not in self._measured:
                gate.value = alive
            elif self.estimator == "first-order":
                gate.value = alive.clone().requires_grad_()
            else:
                gate.value = torch.bernoulli(alive.expand(moment.samples.count, -1) * (1.0 - self.off))

    def rewrite(self, moment: Moment) -> None:
        """Take the derivatives of the loss with respect to the gates."""
        if self.estimator != "first-order" or moment.step >= self._last:
            return
        scaler = self._run.task.accelerator.scaler
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        for name, gate in self._gates.items():
            gradient = gate.value.grad
            if gradient is not None:
                gain = -gradient.double() / scale
                zero = torch.zeros_like(gain)
                self._add(name, torch.stack([gain, torch.ones_like(gain), zero, zero]))

    def gained(self, moment: Moment) -> Tensor:
        """Return what every sample gained, shape (n,)."""
        assert moment.outputs is not None  # noqa: S101 - the forward pass is over
        objective, samples = self._run.task.objective, moment.samples
        outputs = {name: value.detach() for name, value in moment.outputs.items()}
        if self.gain == "accuracy" and objective.labelled is not None and samples.labels is not None:
            return torch.eq(outputs[objective.labelled].argmax(1), samples.labels).double()
        return -objective.each(outputs, moment.target, samples.labels).double()

    def _add(self, name: str, batch: Tensor) -> None:
        """Let a batch enter the moving averages of a group."""
        batch = self._run.task.accelerator.reduce(batch.to(self._run.task.device), "sum").cpu()
        averages, atoms = self._averages[name], torch.from_numpy(self._run.running.atoms[name])
        averages[:, atoms] = self.decay * averages[:, atoms] + batch

    def end(self, moment: Moment) -> None:
        """Sum up what was gained with each gate open, and shut."""
        if self.estimator != "monte-carlo" or moment.step >= self._last:
            return
        with torch.no_grad():
            gain = self.gained(moment).cpu()
        for name, gate in self._measured.items():
            opened = gate.value.double().cpu()
            shut = 1.0 - opened
            self._add(name, torch.stack([gain @ opened, opened.sum(0), gain @ shut, shut.sum(0)]))

    def rest(self) -> None:
        """Open all gates of channels that are left."""
        for name, gate in self._gates.items():
            gate.value = self._open[name]

    def stops(self, run: Run) -> tuple[int, ...]:
        """Return after which steps channels go."""
        return self._plan.steps(run.total)

    def survivors(self, run: Run) -> Plan | None:
        """Choose what goes now, among what is left."""
        plan, before = run.plan(self.scores(), self._plan.way(run.step, run.total)), run.running.plan
        same = before is not None and [item.kept for item in before.groups] == [item.kept for item in plan.groups]
        return None if same or plan.is_identity else plan

    def changes(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the conditional change of every atom, by group id: how much is lost without it.

        That of a group without a gate is the mean of the others.
        """
        lost = {}
        for name, (gained, opened, other, shut) in self._averages.items():
            value = gained / opened.clamp_min(1e-12)
            if self.estimator == "monte-carlo":
                value = value - other / shut.clamp_min(1e-12)
                value[(opened < 1) | (shut < 1)] = 0.0
            lost[name] = value.numpy().copy()
        mean = float(np.mean(np.concatenate([value for name, value in lost.items() if name in self._gated])))
        return {name: value if name in self._gated else np.full(len(value), mean) for name, value in lost.items()}

    def scores(self) -> Scores:
        """Return the changes as saliencies; they are losses all of them, and compared as they are."""
        changes = tuple(self.changes().values())
        return Scores(changes, tuple(f"conditional change, {self.estimator}" for _ in changes), comparable=True)

    def finish(self, run: Run) -> MethodResult:
        """Keep what is left."""
        return MethodResult(self.scores(), start=run.running.plan)

    def tensors(self) -> dict[str, Tensor]:
        """Return the moving averages."""
        return dict(self._averages)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up the moving averages."""
        self._averages = {name: tensors[name].double() for name in self._averages}
