# SPDX-License-Identifier: Apache-2.0
"""FBS: the network learns to predict which channels a sample needs, and channels that are seldom needed go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphprune.errors import UsageError, VerificationError
from graphprune.solvers.saliency import Scores
from graphprune.solvers.training import method
from graphprune.training.check_bridge import TOLERANCE, as_taken, run_file
from graphprune.training.checkpoint import take
from graphprune.training.pruning.fold_gates import fold_factors, foldable_groups, of_what_stays
from graphprune.training.pruning.gated_file import GatedModel, gated_model, packed, unpacked
from graphprune.training.pruning.method import Method, MethodResult
from graphprune.training.pruning.predictors import Predictor, attach_predictors, detach_predictors, predictable

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan
    from graphprune.training.gates import Gate
    from graphprune.training.hooks import Moment
    from graphprune.training.pruning.run import Run

__all__ = ["Fbs"]

_STEPS = 4
"""Times at which the density falls."""
_BATCH = 64


@method("fbs")
class Fbs(Method):
    """Fit predictors, then remove the channels with the lowest mean gate.

    Parameters
    ----------
    density : float
        Share of a group's channels that a sample may use in the end.
    sparsity : float
        Weight of the sum of the gates.
    until : float
        Share of the steps for the predictors. Then they are taken out: their mean goes into the weights of who reads
        the channels, what is least used is cut, and training goes on.
    images : int
        Samples from which mean gates and firing rates are taken.

    Notes
    -----
    Every density is 1 for the first third of that time and falls in four steps then. A gate acts where the channel is
    read, that is on the shift of its BatchNormalization, too. Scale and shift stay in the network, and gates begin near
    1 instead of replacing the scale, so that a trained network is where training starts. Groups that more than one
    layer makes (residual streams), and those that something without weights reads, have no gate, and the mean
    score of the others.

    The network with its gates is a further result, ``gated``. It costs more, not less, than the original in any
    runtime; the plan records its *expected* FLOPs, those of the channels that are on, apart from the static ones.

    Source: Gao et al., Dynamic Channel Pruning: Feature Boosting and Suppression, ICLR 2019, arXiv:1810.05331, sections
    3.2 to 3.4, for the predictor and its threshold; removing by it is ours.
    """

    makes = ("gated",)

    def __init__(
        self, *, density: float = 0.5, sparsity: float = 1e-6, until: float = 2 / 3, images: int = 512
    ) -> None:
        if not 0 < density <= 1 or not 0 < until <= 1:
            raise UsageError("a density, and the share of steps until it is reached, lie above 0 and up to 1")
        if sparsity < 0 or images < 1:
            raise UsageError("the weight of gates must not be negative, and they are measured on at least one sample")
        self.density = density
        self.sparsity = sparsity
        self.until = until
        self.images = images
        self._predictors: dict[str, Predictor] = {}
        self._gates: dict[str, Gate] = {}
        self._open: dict[str, Tensor] = {}
        self._mean: dict[str, npt.NDArray[np.float64]] = {}
        self._fires: dict[str, npt.NDArray[np.float64]] = {}
        self._expected = 0.0
        self._gated: GatedModel | None = None

    def begin_run(self, run: Run) -> None:
        """Put gates and predictors into the network."""
        self._run = run
        net, analysis = run.running.net, run.running.analysis
        self._places = predictable(net, analysis)
        names = [name for name in foldable_groups(net, analysis) if name in self._places]
        if not names:
            raise UsageError("no group of the model is made by one layer and read by weights alone, so none is gated")
        torch.manual_seed(run.task.seed)
        self._gates = run.apart(run.attach(names))
        with run.task.on_device():
            self._predictors = attach_predictors(net, analysis, self._gates, run.samples(3).feeds)
        if not self._predictors:
            raise UsageError("the samples of a batch cannot be told apart inside the model, so they have no own gates")
        net.module.to(run.task.device)

    @property
    def _last(self) -> int:
        return max(1, round(self.until * self._run.total))

    def density_at(self, step: int) -> float:
        """Return the density of a step."""
        gone = max(0.0, step / self._last - 1 / 3) * 1.5
        return 1.0 - (1.0 - self.density) * min(1.0, math.ceil(gone * _STEPS) / _STEPS)

    def begin(self, moment: Moment) -> None:
        """Let the density fall."""
        for predictor in self._predictors.values():
            predictor.density = self.density_at(moment.step)

    def loss(self, moment: Moment, usual: Tensor) -> Tensor:
        """Add the sum of the gates."""
        if moment.step >= self._last or not self.sparsity:
            return usual
        sums = [predictor.last.sum(1).mean() for predictor in self._predictors.values()]
        return usual + self.sparsity * torch.stack(sums).sum()

    def stops(self, run: Run) -> tuple[int, ...]:
        """Return when the predictors are taken out."""
        return (self._last,)

    @torch.no_grad()
    def measure(self) -> None:
        """Take mean gates, firing rates and expected FLOPs from samples."""
        run, net = self._run, self._run.running.net
        net.module.eval()
        outputs: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in self._predictors}
        count = min(self.images, len(run.data))
        for start in range(0, count, _BATCH):
            with run.task.on_device():
                net.run(self._run.samples(min(_BATCH, count - start), start).feeds)
            for name, predictor in self._predictors.items():
                outputs[name].append(predictor.last.double().cpu().numpy())
        gates = {name: np.concatenate(parts) for name, parts in outputs.items()}
        self._mean = {name: value.mean(0) for name, value in gates.items()}
        self._fires = {name: (value > 0).mean(0) for name, value in gates.items()}
        self._expected = self._expected_flops({name: (value > 0).sum(1) for name, value in gates.items()})

    def _expected_flops(self, active: Mapping[str, npt.NDArray[np.int64]]) -> float:
        """Return the mean FLOPs of the channels that are on, given how many there are in each sample."""
        cost = self._run.running.whole.cost
        rows = np.tile(cost.sizes, (len(next(iter(active.values()))), 1))
        for number, group in enumerate(self._run.groups):
            if group.id in active:
                rows[:, number] = active[group.id]
        different, counts = np.unique(rows, axis=0, return_counts=True)
        return float(np.average([cost.flops(row) for row in different], weights=counts))

    def survivors(self, run: Run) -> Plan | None:
        """Measure the gates, keep the gated network, and go on without."""
        for predictor in self._predictors.values():
            predictor.density = self.density
        self.measure()
        self._gated = self._export(run)
        factors = {name: torch.from_numpy(value) for name, value in self._mean.items()}
        detach_predictors(run.running.net)
        plan = run.plan(self.scores())
        fold_factors(run.running.net, run.running.analysis, of_what_stays(factors, plan))
        return plan

    def _export(self, run: Run) -> GatedModel:
        """Return the network with its gates as a model that computes the same."""
        net = run.running.net
        model = gated_model(run.running.written(), run.running.whole, net, self._places, self._predictors)
        samples = as_taken(model, run.samples(8))
        with torch.no_grad(), run.task.on_device():
            expected = {name: value.cpu().numpy() for name, value in net.run(samples.feeds).items()}
        for name, value in run_file(model, samples, tuple(expected), net).items():
            scale = max(float(np.abs(expected[name]).max()), 1e-12)
            error = np.abs(value - expected[name]).max(axis=tuple(range(1, value.ndim))) / scale
            if np.median(error) > TOLERANCE:  # where two gates nearly tie, rounding decides
                raise VerificationError(f"the gated model differs from the module by {np.median(error):.1e}")
        return model

    def renew(self, run: Run) -> None:
        """Go on without predictors."""
        if self._predictors and not run.running.cut:
            detach_predictors(run.running.net)
        self._gates = run.attach()
        self._open = {name: run.open(name) for name in self._gates}

    def rest(self) -> None:
        """Open all gates of channels that are left."""
        for name, value in self._open.items():
            self._gates[name].value = value

    def scores(self) -> Scores:
        """Return the mean gates; they begin alike everywhere, and are compared as they are."""
        mean = float(np.mean(np.concatenate(list(self._mean.values()))))
        per_group = tuple(self._mean.get(group.id, np.full(group.size, mean)) for group in self._run.groups)
        source = tuple("mean gate" if group.id in self._mean else "mean of all gates" for group in self._run.groups)
        return Scores(per_group, source, comparable=True)

    def finish(self, run: Run) -> MethodResult:
        """Keep what is left, and tell of the gated network."""
        further = {} if self._gated is None else {"gated": self._gated}
        return MethodResult(self.scores(), start=run.running.plan, trace=self._record(), further=further)

    def _record(self) -> tuple[dict[str, Any], ...]:
        whole = self._run.running.whole.cost
        static = {"stage": "gated", "static_flops": whole.flops(whole.sizes), "expected_flops": round(self._expected)}
        groups = (
            {"stage": "gates", "group": name, "mean": np.round(self._mean[name], 4).tolist(), "fires": rates}
            for name, value in self._fires.items()
            for rates in (np.round(value, 4).tolist(),)
        )
        return (static, *groups)

    def tensors(self) -> dict[str, Tensor]:
        """Return predictors, and what was measured of them."""
        tensors = {f"phi/{name}": predictor.phi.detach() for name, predictor in self._predictors.items()}
        tensors |= {f"rho/{name}": predictor.rho.detach() for name, predictor in self._predictors.items()}
        tensors |= {f"mean/{name}": torch.from_numpy(value) for name, value in self._mean.items()}
        tensors |= {f"fires/{name}": torch.from_numpy(value) for name, value in self._fires.items()}
        if self._gated is not None:
            tensors["gated"] = packed(self._gated)
            tensors["expected"] = torch.tensor(self._expected, dtype=torch.float64)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up predictors, and what was measured of them."""
        with torch.no_grad():
            for name, predictor in self._predictors.items():
                predictor.phi.copy_(tensors[f"phi/{name}"])
                predictor.rho.copy_(tensors[f"rho/{name}"])
        if "gated" in tensors:
            like = {name: predictor.rho.double() for name, predictor in self._predictors.items()}
            self._mean = {name: take(tensors, f"mean/{name}", value).numpy() for name, value in like.items()}
            self._fires = {name: take(tensors, f"fires/{name}", value).numpy() for name, value in like.items()}
            self._expected = float(tensors["expected"])
            self._gated = unpacked(tensors["gated"], self._run.running.whole.model)
