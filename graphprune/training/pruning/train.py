# SPDX-License-Identifier: Apache-2.0
"""The run: a network is trained by a method, its weights go back into the file, and an ordinary plan is made for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from graphprune.analysis.analysis import Analysis
from graphprune.data.source import Source
from graphprune.errors import InputError, NotImprovedError, UsageError, quote
from graphprune.model.graph import Graph
from graphprune.model.load import Model
from graphprune.model.normalize import inline_functions
from graphprune.plan.budget import BudgetRequest
from graphprune.plan.check import group_plan
from graphprune.plan.file import dumps, loads
from graphprune.plan.schema import Plan
from graphprune.planning.make_plan import SolveOptions, make_plan
from graphprune.training.bridge import to_onnx, value_in, weights_now, with_values
from graphprune.training.check_bridge import check_written
from graphprune.training.checkpoint import Progress, below, take
from graphprune.training.device_memory import enough_memory
from graphprune.training.gates import Gate
from graphprune.training.loader import Samples
from graphprune.training.long_run import DEFAULT_RATES, Clock, RunFile, ignore_report, run_digest
from graphprune.training.preparation import check_gradients, prepare
from graphprune.training.pruning.method import Method, MethodResult
from graphprune.training.pruning.run import Run
from graphprune.training.pruning.running_network import begin, renewed
from graphprune.training.pruning.train_options import Trained, TrainOptions
from graphprune.training.trainer import Measure, Trainer, measure, put, snapshot

__all__ = ["TrainOptions", "Trained", "train"]


@enough_memory()
def train(
    analysis: Analysis,
    data: Source,
    requests: Sequence[BudgetRequest],
    method: Method,
    options: TrainOptions | None = None,
) -> Trained:
    """Train a network by a method and plan what to remove from it.

    Parameters
    ----------
    analysis : Analysis
        Of the model. Not changed.
    data : Source
        Samples, with labels or without.
    requests : sequence of BudgetRequest
        The first one leads.
    method : Method
        With its settings; a new one for every run.
    options : TrainOptions, optional

    Returns
    -------
    Trained

    Raises
    ------
    UnsupportedModelError
        If the model cannot be converted for training, before anything is trained.
    UsageError
        If the data does not fit, the method needs labels and there are none, or the device has too little memory.
    BudgetUnreachableError, NothingToPruneError
        If the model cannot be made as small, before anything is trained.
    NotImprovedError
        If numbers are no longer finite.
    """
    options = options or TrainOptions()
    return _RunLoop(analysis, data, tuple(requests), method, options).result()


class _RunLoop:
    """The loop around a run: it makes the steps, removes what the method says, and makes the plan in the end."""

    def __init__(
        self,
        analysis: Analysis,
        data: Source,
        requests: tuple[BudgetRequest, ...],
        method: Method,
        options: TrainOptions,
    ) -> None:
        self.how = options.training
        _check(analysis, data, requests, method)
        # What cannot be reached is said before anything is trained.
        make_plan(analysis, requests, replace(options.solving, solver="uniform", criterion="l1", settings={}))
        teacher = options.teacher if options.teacher is not None or data.labelled else analysis.model
        task, self.before, self.facts = prepare(analysis.model, data, teacher, self.how)
        check_gradients(task)
        self.method = method
        self.task_facts = {"teacher": teacher is not None}
        total = max(1, round(self.how.epochs * task.loader.steps))
        running = begin(task.net, analysis)
        source = task.loader.source
        self.run = Run(running, replace(task, hook=method), source, requests, options.solving, total)
        rate = self.how.rate or DEFAULT_RATES[self.how.optimisation.optimizer]
        self.run.how, self.run.rate = self.how.optimisation, rate
        self.run.recovery = options.recovery
        self.progress = Progress(0, rate, self.before.loss, math.inf)
        self.best: dict[str, Tensor] = {}
        self.file = RunFile(self.how.checkpoint, _digest(analysis, data, requests, method, options))
        listen = options.listen if task.accelerator.is_main_process else ignore_report
        self.listen = listen

    def result(self) -> Trained:
        """Make all steps, and the plan."""
        original, run = self.run.running.whole, self.run
        self.method.begin_run(run)
        trainer = self._resumed() if self.how.resume else self._trainer()
        clock = Clock("train", run.total, run.step, self.listen)
        while run.step < run.total:
            last = min([stop for stop in self.method.stops(run) if stop > run.step] + [run.total])
            self._stretch(trainer, clock, last)
            if last in self.method.stops(run) and self._shrink():
                trainer = self._trainer()
            if run.step == max(self.method.stops(run), default=-1):
                self._keep(measure(run.task))
            self._save(trainer)
        after = self._best()
        outcome = self.method.finish(run)
        self._check_module()
        whole = renewed(original, run.running.written())
        plan = self._planned(whole, outcome, outcome.start)
        if self._made_good(plan, outcome):
            after = measure(run.task)
            whole = renewed(original, run.running.written())
            plan = self._planned(whole, outcome, plan)
        plan = self.method.settle(whole, plan)
        return Trained(
            whole,
            self._signed(plan, outcome),
            self.before,
            after,
            self._facts(),
            pruned=_same(plan, run.running.plan),
            main=bool(run.task.accelerator.is_main_process),
            further=outcome.further,
        )

    def _keep(self, measured: Measure) -> None:
        """Keep the weights if they are the best since the last removal; before it there is nothing to compare."""
        run = self.run
        if run.running.plan is None or run.step < max(self.method.stops(run)):
            return
        if measured.loss < self.progress.best:
            self.progress.best, self.progress.best_step = measured.loss, run.step
            self.best = snapshot(run.task.net)

    def _best(self) -> Measure:
        """Go back to the best weights since the last removal, if they are not the present ones; measure the network."""
        run, measured = self.run, measure(self.run.task)
        self._keep(measured)
        if not self.best or self.progress.best_step == run.step:
            return measured
        put(run.task.net, self.best)
        run.trace.append({"stage": "best", "step": self.progress.best_step, "loss": round(self.progress.best, 6)})
        return measure(run.task)

    def _planned(self, whole: Analysis, outcome: MethodResult, start: Plan | None) -> Plan:
        how = replace(self.run.starting(start), inherit=outcome.inherit)
        return make_plan(whole, self.run.requests, how, scores=outcome.scores)

    def _made_good(self, plan: Plan, outcome: MethodResult) -> bool:
        """Make good what a plan removes beyond what is gone; return whether the network is a new one.

        What is merged is not made good: the channels that stay do that.
        """
        run = self.run
        merged = self.method.exact or outcome.inherit == "merge"
        if run.recovery is None or merged or _same(plan, run.running.plan):
            return False
        return run.shrink(plan)

    def _trainer(self) -> Trainer:
        return Trainer(self.run.task, self.how.optimisation, self.progress.rate, self.run.total)

    def _stretch(self, trainer: Trainer, clock: Clock, last: int) -> None:
        """Make steps until `last`; checkpoints fall between them, but not on it."""
        run = self.run
        for samples in run.task.loader.stream(run.step, last):
            loss = trainer.step(samples, run.step)
            if not math.isfinite(loss):
                raise NotImprovedError(
                    f"the loss of step {run.step + 1} is not finite; nothing was written", hint="lower the --rate"
                )
            run.step += 1
            clock.tick(loss, trainer.optimizer.param_groups[0]["lr"])
            if run.step % run.task.loader.steps == 0:
                measured = measure(run.task)
                clock.judged(measured)
                if run.step not in self.method.stops(run):
                    self._keep(measured)
            if run.step % self.how.checkpoint_every == 0 and run.step < last:
                self._save(trainer)

    def _shrink(self) -> bool:
        """Ask the method what goes; return whether the network is a new one."""
        run = self.run
        plan = self.method.survivors(run)
        if plan is None:
            return False
        kept = sum(len(group.kept) for group in plan.groups)
        run.trace.append({"stage": "removal", "step": run.step, "kept": kept, "cost": plan.budget.after})
        new = run.shrink(plan)
        self.method.renew(run)
        return new

    def _save(self, trainer: Trainer) -> None:
        self.file.save(trainer, replace(self.progress, step=self.run.step), self.best, self._further)

    def _further(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds beside the trainer's tensors: what is gone, what it was, and the record."""
        running = self.run.running
        tensors = {f"hook/{name}": value for name, value in self.method.tensors().items()}
        if running.plan is not None:
            graph = Graph(inline_functions(running.whole.model.proto))
            whole = {name: value_in(running.whole.model, graph, name) for name in weights_now(running.net)}
            tensors |= {f"whole/{name}": value for name, value in whole.items() if value is not None}
            tensors["plan"] = _text(dumps(running.plan))
            if running.cut_by is not None and not running.cut:
                tensors["cut"] = _text(dumps(running.cut_by))
        tensors["trace"] = _text(json.dumps(self.run.trace))
        return tensors

    def _resumed(self) -> Trainer:
        """Take up the run where the checkpoint is."""
        run = self.run
        self.progress, tensors = self.file.load(run.total)
        run.step = self.progress.step
        with self.file.errors():
            run.trace = _trace(tensors)
            model = _whole(tensors, run)
            removals = [plan for name in ("cut", "plan") if (plan := _removed(tensors, name, run)) is not None]
        for plan in removals:
            run.shrink(plan, model)
        if removals:
            self.method.renew(run)
        trainer = self._trainer()
        self.best = self.file.restore(trainer, self.progress, tensors)
        with self.file.errors():
            own = below(tensors, "hook/")
            for name, value in self.method.tensors().items():
                if name in own:
                    take(own, name, value)
            self.method.restore(own)
        return trainer

    def _check_module(self) -> None:
        """Run the file that the module would be against the module."""
        task, net = self.run.task, self.run.running.net
        task.accelerator.unwrap_model(net.module, keep_fp32_wrapper=False)
        net.module.to("cpu").eval()
        for gate in net.module.modules():
            if isinstance(gate, Gate):
                gate.value = torch.ones(gate.size)
        index = torch.arange(min(len(task.held_out), 32)).numpy()
        check_written(net, to_onnx(net), Samples.of(task.held_out.read(index)))

    def _signed(self, plan: Plan, outcome: MethodResult) -> Plan:
        """Let the plan say how it came about."""
        solving = self.run.solving
        options = {
            **plan.solver.options,
            "solver": solving.solver,
            "epochs": self.how.epochs,
            "rate": self.progress.rate,
            "batch": self.run.task.loader.batch,
            "method": self.method.record(),
        }
        trace = (*self.run.trace, *outcome.trace, *plan.solver.trace)
        record = replace(
            plan.solver,
            name=self.method.name,
            criterion="trained",
            seed=self.how.seed,
            options=options,
            trace=tuple(trace),
        )
        return replace(plan, solver=record)

    def _facts(self) -> dict[str, object]:
        return self.facts | self.task_facts | {"steps": self.run.total, "rate": self.progress.rate}


def _same(plan: Plan, other: Plan | None) -> bool:
    """Whether two plans keep the same; no plan removes nothing."""
    if other is None:
        return plan.is_identity
    return [group.kept for group in plan.groups] == [group.kept for group in other.groups]


def _text(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _untext(stored: Tensor) -> str:
    if stored.dtype != torch.uint8 or stored.dim() != 1:
        raise InputError(f"a text is {stored.dtype} of shape {quote(list(stored.shape))}")
    return bytes(stored.tolist()).decode()


def _trace(tensors: Mapping[str, Tensor]) -> list[Mapping[str, Any]]:
    """Return the record that a checkpoint holds."""
    trace: object = json.loads(_untext(tensors["trace"]))
    if not isinstance(trace, list) or not all(isinstance(entry, dict) for entry in trace):
        raise InputError("its record is no list of entries")
    return trace


def _removed(tensors: Mapping[str, Tensor], name: str, run: Run) -> Plan | None:
    """Return a plan that a checkpoint holds: that of the last removal, or of what was cut by then; None without."""
    stored = tensors.get(name)
    if stored is None:
        return None
    plan = loads(_untext(stored))
    if [(item.id, item.size) for item in plan.groups] != [(group.id, group.size) for group in run.groups]:
        raise InputError("its plan has other groups than the model")
    for item, group in zip(plan.groups, run.groups, strict=True):
        if item.members != group_plan(group, item.kept).members:
            raise InputError(f"its plan cuts other tensors than there are in {quote(group.id)}")
    return plan


def _whole(tensors: Mapping[str, Tensor], run: Run) -> Model:
    """Return the whole model with the weights that it had at the last removal before a checkpoint."""
    model = run.running.whole.model
    graph = Graph(inline_functions(model.proto))
    values = below(tensors, "whole/")
    for name in values:
        before = value_in(model, graph, name)
        if before is None:
            raise InputError(f"the model has no tensor {quote(name)}")
        take(values, name, before)
    return with_values(model, graph, values)


def _check(analysis: Analysis, data: Source, requests: Sequence[BudgetRequest], method: Method) -> None:
    if method.labelled and not data.labelled:
        raise UsageError(
            f"the method {quote(method.name)} needs labels, and the data {quote(data.name)} has none",
            hint="give images in one folder per class, or an .npz with labels; or choose another method",
        )
    if any(request.metric == "latency" for request in requests):
        raise UsageError("a latency cannot be the budget of training", hint="use --flops, --params, --size or --memory")
    if not analysis.groups:
        make_plan(analysis, requests, SolveOptions())  # says best why nothing can go


def _digest(
    analysis: Analysis, data: Source, requests: Sequence[BudgetRequest], method: Method, options: TrainOptions
) -> str:
    """Return a digest of everything that the outcome of a run depends on."""
    further = {
        "method": method.name,
        "settings": method.record(),
        "requests": [[request.metric, request.target] for request in requests],
        "recovery": asdict(options.recovery) if options.recovery is not None else None,
        "widths": str(options.solving),
    }
    return run_digest(options.training, analysis.model, options.teacher, data, further)
