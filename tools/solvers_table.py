# SPDX-License-Identifier: Apache-2.0
"""Every solver with every criterion under every kind of budget, on every model named; each promise is checked.

::

    python tools/solvers_table.py MODEL... --resume solvers.jsonl --markdown docs/solvers.md

For each plan is checked: every budget holds, as the plan says it and as it is counted again on the pruned model; no
group could take its next level; and the pruned model equals the masked original in onnxruntime. Plans of one model
that keep the same channels are cut and compared once. A budget that is called out of reach must be below what the
narrowest widths cost. A latency is what the tables of single layers predict, measured once for each model and then
read from the cache; `bench_latency.py` measures whole networks. Everything runs in one process and one thread; results
are kept line by line, and a run that was ended goes on. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from solvers_report import Record, summary, write_page

from graphprune import api
from graphprune.cost.latency.cache import Cache
from graphprune.cost.latency.measure import MeasuredLatency, latency_cost
from graphprune.cost.latency.session_stopwatch import SessionStopwatch
from graphprune.cost.metrics import ModelCost, model_cost
from graphprune.errors import GraphPruneError, RequestError
from graphprune.model.write import file_bytes
from graphprune.plan.budget import BudgetRequest, parse_target
from graphprune.plan.schema import METRICS, Metric, Plan
from graphprune.planning.constraints.bounds import Bounds
from graphprune.planning.make_plan import make_plan, score_groups
from graphprune.solvers import criteria, widths
from graphprune.solvers.moves.levels import RULES, machine_rule
from graphprune.trials.attempt import kept_share

Widths = npt.NDArray[np.int64]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
BUDGETS = "flops=0.5,params=0.5,size=0.5,memory=0.6,latency=0.6,flops=0.6+params=0.4"


@dataclass(frozen=True)
class Point:
    """One thing to try."""

    solver: str
    criterion: str
    requests: tuple[BudgetRequest, ...]

    @property
    def budget(self) -> str:
        """The budgets as they are given on the command line."""
        return "+".join(f"{request.metric}={request.target}" for request in self.requests)


@dataclass
class Checked:
    """What cutting and comparing showed for channels that stay; plans that keep the same share it."""

    status: str
    error: float
    effect: float
    counted: dict[str, int] = field(default_factory=dict)


class Subject:
    """A model, analysed once, and what was found for sets of channels that stay."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.analysis = api.analyze(api.load(path))
        self._checked: dict[str, Checked] = {}

    @cached_property
    def _latency(self) -> MeasuredLatency:
        watch = SessionStopwatch()
        return latency_cost(self.analysis, watch, Cache(watch.environment), RULES[machine_rule()].block)

    def _cost(self, metric: str) -> ModelCost:
        if metric == "latency":
            return ModelCost.of(self._latency.cost, self.analysis.cost.sizes, self._latency.rest)
        return model_cost(self.analysis, metric)

    def run(self, point: Point, seed: int) -> Record:
        """Solve and check one point."""
        record = Record(self.name, point.solver, point.criterion, point.budget)
        options = api.SolveOptions(point.solver, point.criterion, seed=seed)
        try:
            scores = score_groups(self.analysis, options)
            started = time.process_time()
            latency = self._latency if any(one.metric == "latency" for one in point.requests) else None
            plan = make_plan(self.analysis, point.requests, options, latency, scores)
            record.seconds = time.process_time() - started
            record.kept = kept_share(plan, scores)
            record.used = max(budget.after / budget.limit for budget in plan.budgets)
            record.gap = plan.solver.certificate.gap if plan.solver.certificate else None
            self._check_widths(record, plan, options)
            self._check_model(record, plan)
        except RequestError as error:
            record.status = "unreachable"
            narrowest = self._widths_allowed(options, relaxed=True)
            if self._fits(np.array([levels[0] for levels in narrowest], dtype=np.int64), point.requests):
                record.fail(f"called out of reach, but it is not: {error.message}")
        except GraphPruneError as error:
            record.fail(f"{type(error).__name__}: {error.message}")
        except Exception as error:  # whatever a library raises is a finding
            record.fail(f"{type(error).__name__}: {error}")
        return record

    def _check_widths(self, record: Record, plan: Plan, options: api.SolveOptions) -> None:
        """Check that the budgets hold, that widths are levels, and that no next level fits."""
        requests = tuple(BudgetRequest(budget.metric, budget.target) for budget in plan.budgets)
        kept = np.array([len(group.kept) for group in plan.groups], dtype=np.int64)
        if not self._fits(kept, requests) or any(budget.after > budget.limit for budget in plan.budgets):
            record.fail(f"over budget: {[(budget.metric, budget.after, budget.limit) for budget in plan.budgets]}")
        allowed = self._widths_allowed(options, relaxed=bool(plan.solver.options["relaxed"]))
        for number, levels in enumerate(allowed):
            if kept[number] not in levels:
                record.fail(f"{plan.groups[number].id} has {kept[number]} atoms, which is not a level")
            for width in levels[levels > kept[number]][:1]:
                wider = kept.copy()
                wider[number] = width
                if self._fits(wider, requests):
                    record.fail(f"{plan.groups[number].id} could be {width} wide instead of {kept[number]}")

    def _check_model(self, record: Record, plan: Plan) -> None:
        """Check what the pruned model costs, and that it equals the masked original."""
        kept = json.dumps([group.kept for group in plan.groups]).encode("ascii")
        key = hashlib.sha256(kept).hexdigest()
        if key not in self._checked:
            self._checked[key] = self._measure(plan)
        found = self._checked[key]
        record.verdict, record.error, record.effect = found.status, found.error, found.effect
        if found.status not in ("verified", "vacuous"):
            record.fail(f"verification says {found.status}")
        for budget in plan.budgets:
            counted = found.counted.get(budget.metric, budget.after)
            wrong = counted > budget.after if budget.metric == "size" else counted != budget.after  # a size is a bound
            if wrong:
                record.fail(f"{budget.metric}: {budget.after} predicted, {counted} counted on the pruned model")

    def _measure(self, plan: Plan) -> Checked:
        pruned = api.apply(self.analysis, plan)
        verdict = api.verify(self.analysis, pruned, plan)
        again = api.analyze(pruned, api.AnalyzeOptions(self.analysis.input_shapes))
        counted = {metric: model_cost(again, metric).before for metric in ("flops", "memory")}
        counted["size"] = file_bytes(pruned)
        return Checked(verdict.status, verdict.error, verdict.effect, counted)

    def _widths_allowed(self, options: api.SolveOptions, *, relaxed: bool) -> tuple[Widths, ...]:
        return Bounds(self.analysis, options.rules).levels(relaxed=relaxed)

    def _fits(self, kept: Widths, requests: tuple[BudgetRequest, ...]) -> bool:
        for request in requests:
            cost = self._cost(request.metric)
            if cost.after(kept) > request.limit(cost.before):
                return False
        return True


def parse_budgets(text: str) -> tuple[tuple[BudgetRequest, ...], ...]:
    """Return budgets, those joined by a plus together: ``flops=0.5,flops=0.6+params=0.4``."""
    found = []
    for joined in text.split(","):
        requests = []
        for single in joined.split("+"):
            name, _, target = single.partition("=")
            metric: Metric = next(known for known in METRICS if known == name)
            requests.append(BudgetRequest(metric, parse_target(target, metric)))
        found.append(tuple(requests))
    return tuple(found)


def read_records(file: Path | None) -> dict[tuple[str, ...], Record]:
    """Return the records that an earlier run has left, those without a failure."""
    if file is None or not file.exists():
        return {}
    records = [Record(**json.loads(line)) for line in file.read_text("utf-8").splitlines() if line.endswith("}")]
    return {record.key: record for record in records if not record.failures}


def run(models: list[Path], points: list[Point], done: dict[tuple[str, ...], Record], seed: int) -> Iterator[Record]:
    """Yield a record for every point of every model that is not done yet."""
    for path in models:
        missing = [point for point in points if (path.stem, point.solver, point.criterion, point.budget) not in done]
        if not missing:
            continue
        subject = Subject(path)
        for point in missing:
            yield subject.run(point, seed)


def use_one_thread() -> None:
    """Start again where libraries that are loaded by now may use several threads."""
    if any(os.environ.get(name) != "1" for name in THREADS):
        os.environ.update(dict.fromkeys(THREADS, "1"))
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very command, no shell


def main() -> int:
    """Run the command line; return the exit status."""
    use_one_thread()
    parser = argparse.ArgumentParser(description="Check every solver with every criterion under every kind of budget.")
    parser.add_argument("models", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--budgets", default=BUDGETS, help="separated by commas; joined by + they hold together")
    parser.add_argument(
        "--solvers", default=",".join(name for name in widths.names() if not widths.needs_samples(name))
    )
    parser.add_argument(
        "--criteria", default=",".join(name for name in criteria.names() if not criteria.needs_samples(name))
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, metavar="JSONL", help="keep records here, skip what was fine")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this page")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    points = [
        Point(solver, criterion, requests)
        for requests in parse_budgets(options.budgets)
        for criterion in options.criteria.split(",")
        for solver in options.solvers.split(",")
    ]
    done = read_records(options.resume)
    for record in run(options.models, points, done, options.seed):
        done[record.key] = record
        print(record.line(), flush=True)
        if options.resume:
            with options.resume.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(record)) + "\n")
    wanted = {(path.stem, point.solver, point.criterion, point.budget) for path in options.models for point in points}
    records = [record for key, record in done.items() if key in wanted]
    print(summary(records))
    if options.markdown:
        write_page(options.markdown, records, options.budgets, options.seed)
    return int(any(record.failures for record in records))


if __name__ == "__main__":
    sys.exit(main())
