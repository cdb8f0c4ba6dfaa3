# SPDX-License-Identifier: Apache-2.0
"""The trainer: steps of an optimiser on one module, and the held-out measure that judges them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from graphprune.checks import check_fields
from graphprune.choices import Optimizer
from graphprune.data.source import Source
from graphprune.errors import InputError
from graphprune.training.bridge import Trainable, named
from graphprune.training.checkpoint import below, take_all
from graphprune.training.hooks import Hook, Moment
from graphprune.training.learning_rate import rate_at
from graphprune.training.loader import Loader, Samples
from graphprune.training.losses import Objective

__all__ = ["Measure", "Optimisation", "Task", "Trainer"]


@dataclass(frozen=True)
class Optimisation:
    """How steps are made.

    Parameters
    ----------
    optimizer : {"sgd", "adamw"}
    momentum : float
        Of SGD.
    weight_decay : float
        For weights of rank 2 and more; scales and shifts do not decay.
    warmup : float
        Share of the steps in which the rate grows.
    clip : float
        Largest norm of the gradient; 0 leaves it as it is.
    ema : float
        Decay of the moving average of the weights that is judged and kept in place of them; 0 for none.
    """

    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.05
    clip: float = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, optimizer=Optimizer)


@dataclass(frozen=True)
class Measure:
    """What a network reaches on the held-out samples.

    Attributes
    ----------
    loss : float
        Mean of the objective, without augmentation and label smoothing. Lower is better.
    accuracy : float or None
        Share of the samples whose highest score is at the label.
    agreement : float or None
        Share of the samples whose highest score is where the teacher's is.
    """

    loss: float
    accuracy: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned, from what.

    Parameters
    ----------
    net : Trainable
    teacher : Trainable or None
    objective : Objective
    loader : Loader
        Of the training samples.
    held_out : Source
        Samples that judge.
    accelerator : accelerate.Accelerator
        Device, precision and processes.
    seed : int
    hook : Hook
        What happens at every step beside that.
    """

    net: Trainable
    teacher: Trainable | None
    objective: Objective
    loader: Loader
    held_out: Source
    accelerator: Any
    seed: int = 0
    hook: Hook = field(default_factory=Hook)

    @property
    def device(self) -> torch.device:
        """Where the module runs."""
        device: torch.device = self.accelerator.device
        return device

    def on_device(self) -> AbstractContextManager[Any]:
        """Let what a graph computes from shapes lie where its values are."""
        return nullcontext() if self.device.type == "cpu" else self.device

    def teach(self, samples: Samples) -> dict[str, Tensor] | None:
        """Return the teacher's outputs."""
        if self.teacher is None:
            return None
        with torch.no_grad(), self.accelerator.autocast(), self.on_device():
            return self.teacher.run(samples.feeds)


class Trainer:
    """One optimiser at work on a task; several may follow one another on the same module.

    Parameters
    ----------
    task : Task
    how : Optimisation
    rate : float
        The highest learning rate.
    total : int
        Steps of the whole run.
    """

    def __init__(self, task: Task, how: Optimisation, rate: float, total: int) -> None:
        self.task = task
        self.how = how
        self.rate = rate
        self.total = total
        self.optimizer = task.accelerator.prepare_optimizer(_optimizer(task, how, rate))
        self.model: nn.Module = task.accelerator.prepare_model(task.net.module)
        self.average = {path: value.detach().clone() for path, value in task.net.changing.items()} if how.ema else {}

    def step(self, samples: Samples, number: int) -> float:
        """Make one step and return the mean loss over all processes; NaN or infinite where it went wrong."""
        task, accelerator = self.task, self.task.accelerator
        samples = samples.to(task.device)
        torch.manual_seed(hash((task.seed, number)) & (2**63 - 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(number, self.total, self.rate, int(self.how.warmup * self.total))
        moment = Moment(number, self.total, samples, task.teach(samples))
        self.model.train()
        task.hook.begin(moment)
        with accelerator.autocast(), task.on_device():
            moment.outputs = named(task.net, self.model(*(samples.feeds[name] for name in task.net.inputs)))
            loss = task.hook.loss(moment, task.objective(moment.outputs, moment.target, samples.labels))
        value = float(accelerator.reduce(loss.detach(), "mean"))
        if not math.isfinite(value):
            return value
        accelerator.backward(loss)
        if self.how.clip:
            accelerator.clip_grad_norm_(self.model.parameters(), self.how.clip)
        task.hook.rewrite(moment)
        self.optimizer.step()
        self.optimizer.zero_grad()
        task.hook.end(moment)
        self._follow(number)
        return value

    def _follow(self, number: int) -> None:
        """Move the average towards the weights; early on it keeps up with them."""
        decay = min(self.how.ema, (1 + number) / (10 + number))
        with torch.no_grad():
            for path, value in self.task.net.changing.items() if self.average else ():
                self.average[path].lerp_(value, 1.0 - decay)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Put the averaged weights in place for as long as this lasts."""
        if not self.average:
            yield
            return
        own = snapshot(self.task.net)
        put(self.task.net, self.average)
        yield
        put(self.task.net, own)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint has to keep, by name."""
        tensors = {f"net/{path}": value for path, value in self.task.net.changing.items()}
        tensors |= {f"average/{path}": value for path, value in self.average.items()}
        for number, entries in self.optimizer.optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                if value is not None:
                    tensors[f"optimizer/{number}/{key}"] = torch.as_tensor(value)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `tensors` returned.

        Raises
        ------
        InputError
            If these are not the tensors of this network and this optimiser.
        """
        put(self.task.net, take_all(below(tensors, "net/"), self.task.net.changing))
        average = take_all(below(tensors, "average/"), self.average)
        self.average = {path: value.to(self.task.device) for path, value in average.items()}
        inner = self.optimizer.optimizer
        inner.load_state_dict({**inner.state_dict(), "state": self._optimizer_state(below(tensors, "optimizer/"))})

    def _optimizer_state(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Return what an optimiser remembers of each parameter, by the number of the parameter."""
        wanted = _REMEMBERED[self.how.optimizer]
        parameters = [value for group in self.optimizer.optimizer.param_groups for value in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for number in {int(name.partition("/")[0]) for name in tensors}:
            if number not in range(len(parameters)):
                raise InputError(f"the optimiser has no parameter {number}")
            like = {f"{number}/{key}": torch.zeros(()) if key == "step" else parameters[number] for key in wanted}
            state[number] = {name.partition("/")[2]: value for name, value in take_all(tensors, like).items()}
        return state

    @property
    def scaler(self) -> dict[str, float]:
        """State of the gradient scaler; empty without float16."""
        scaler = self.task.accelerator.scaler
        return {} if scaler is None else dict(scaler.state_dict())


_REMEMBERED = {"sgd": ("momentum_buffer",), "adamw": ("step", "exp_avg", "exp_avg_sq")}
"""What an optimiser keeps of each parameter."""


def snapshot(net: Trainable) -> dict[str, Tensor]:
    """Return a copy of everything that training changes."""
    return {path: value.detach().clone() for path, value in net.changing.items()}


def put(net: Trainable, tensors: dict[str, Tensor]) -> None:
    """Give the module the values of a snapshot."""
    with torch.no_grad():
        for path, value in net.changing.items():
            value.copy_(tensors[path])


def _optimizer(task: Task, how: Optimisation, rate: float) -> torch.optim.Optimizer:
    kept = task.hook.undecayed
    parameters = [value for value in task.net.module.parameters() if value.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [value for value in parameters if value.dim() > 1 and id(value) not in kept],
            "weight_decay": how.weight_decay,
        },
        {"params": [value for value in parameters if value.dim() <= 1 or id(value) in kept], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if how.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    return torch.optim.SGD(groups, lr=rate, momentum=how.momentum)


@torch.no_grad()
def measure(task: Task, batch: int | None = None) -> Measure:
    """Judge the module on the held-out samples, which are divided among the processes."""
    accelerator, net = task.accelerator, task.net
    net.module.eval()
    task.hook.rest()
    size = batch or max(1, task.loader.batch // task.loader.processes)
    sums = torch.zeros(4, dtype=torch.float64)
    for start in range(task.loader.rank * size, len(task.held_out), size * task.loader.processes):
        index = torch.arange(start, min(start + size, len(task.held_out))).numpy()
        samples = Samples.of(task.held_out.read(index)).to(task.device)
        target = task.teach(samples)
        with accelerator.autocast(), task.on_device():
            outputs = net.run(samples.feeds)
            loss = task.objective(outputs, target, samples.labels, training=False)
        sums += samples.count * torch.tensor([1.0, float(loss.detach()), *_hits(task, outputs, target, samples)])
    count, loss_sum, right, alike = accelerator.reduce(sums.to(task.device, _wide(task.device)), "sum").tolist()
    scored = task.objective.scores
    labelled = scored is not None and task.objective.labelled is not None and task.held_out.labelled
    return Measure(
        loss_sum / count,
        right / count if labelled else None,
        alike / count if scored is not None and task.teacher is not None else None,
    )


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _hits(task: Task, outputs: dict[str, Tensor], target: dict[str, Tensor] | None, samples: Samples) -> list[float]:
    """Return the share of samples where the highest score is at the label, and where it is at the teacher's."""
    name = task.objective.scores
    if name is None:
        return [0.0, 0.0]
    best = outputs[name].argmax(1)
    labels = samples.labels
    return [
        float(torch.eq(best, labels).double().mean()) if labels is not None and labels.shape == best.shape else 0.0,
        float((best == target[name].argmax(1)).double().mean()) if target is not None else 0.0,
    ]
