# SPDX-License-Identifier: Apache-2.0
"""One model through the whole job at several budgets, every promise checked again by other means.

`tools/zoo.py` runs this file in a process of its own for each model; it prints one JSON record per budget::

    python tools/zoo_check.py model.onnx --budgets 0.75,0.5,0.3
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from graphprune import api
from graphprune.errors import BudgetUnreachableError, GraphPruneError, NothingToPruneError
from graphprune.plan.schema import Plan
from graphprune.solvers.moves.levels import levels
from graphprune.verification.fidelity.check_fidelity import check_fidelity

Widths = npt.NDArray[np.int64]
Shapes = dict[str, tuple[int, ...]]

LARGEST_ERROR = 1e-4
"""Of any tensor, relative to its largest absolute value."""
SLACK = {"flops": 0, "params": 16, "size": 4096}
"""How far each cost of the written file may be from the predicted one: constants that encode or follow shapes (1 over
the root of a head's size) come and go with the surgery, so elements and bytes are exact for weights only."""


@dataclass
class Record:
    """What one model at one budget gave; `status` is "ok", "unreachable" or "failed"."""

    name: str
    budget: float
    status: str = "ok"
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    macs: int = 0
    prunable: float = 0.0
    groups: int = 0
    reach: float = 1.0
    aligned_reach: float = 1.0
    relaxed: bool = False
    ratio: float = 1.0
    error: float = 0.0
    effect: float = 0.0
    verdict: str = ""
    seconds: float = 0.0
    verify_seconds: float = 0.0

    def fail(self, message: str) -> None:
        """Note what is wrong."""
        self.status = "failed"
        self.failures.append(message)


class Candidate:
    """A model, analysed, and what does not depend on the budget.

    Parameters
    ----------
    path : Path
        The file.
    shapes : dict of str to tuple of int
        Shapes for inputs with dynamic dimensions; others get defaults.
    """

    def __init__(self, path: Path, shapes: Shapes) -> None:
        started = time.perf_counter()
        self.path = path
        self.analysis = api.analyze(api.load(path), api.AnalyzeOptions(shapes))
        self.analysis_seconds = time.perf_counter() - started
        self.sizes: Widths = self.analysis.cost.sizes
        self.flops = self.analysis.cost.flops(self.sizes)
        self.batches = batch_shapes(self.analysis.model.proto, self.analysis.input_shapes)
        self.runs = [_behaviour(path, shapes) for shapes in self.batches]
        self.valid = _complaint(path) is None

    def levels(self, *, relaxed: bool) -> list[Widths]:
        """Return the widths that each group may take."""
        return [levels(group.size, group.channels, "auto", relaxed=relaxed) for group in self.analysis.groups]

    def reach(self, *, relaxed: bool) -> float:
        """Return the share of the FLOPs at the narrowest widths."""
        narrowest = np.array([allowed[0] for allowed in self.levels(relaxed=relaxed)], dtype=np.int64)
        return self.analysis.cost.flops(narrowest) / self.flops if self.flops else 1.0

    def record(self, budget: float) -> Record:
        """Return an empty record for a budget."""
        return Record(
            name=self.path.stem,
            budget=budget,
            macs=self.flops // 2,
            prunable=self.analysis.prunable,
            groups=len(self.analysis.groups),
            reach=self.reach(relaxed=True),
            aligned_reach=self.reach(relaxed=False),
        )

    def run(self, budget: float, folder: Path) -> Record:
        """Prune to a budget, write the result into `folder`, and check it."""
        record = self.record(budget)
        started = time.perf_counter()
        try:
            plan = api.solve(self.analysis, api.BudgetRequest("flops", budget))
        except (BudgetUnreachableError, NothingToPruneError) as error:
            record.status = "unreachable"
            if record.reach <= budget:
                record.fail(f"called unreachable, but {record.reach:.4f} is: {error.message}")
            return record
        pruned = api.apply(self.analysis, plan)
        target = folder / "pruned.onnx"
        api.save(pruned, target, force=True)
        record.seconds = self.analysis_seconds + time.perf_counter() - started
        with _noting(record, "plan"):
            self._check_plan(record, plan)
        with _noting(record, "file"):
            self._check_file(record, target, plan)
        with _noting(record, "verification"):
            self._verify(record, target, plan)
        return record

    def _check_plan(self, record: Record, plan: Plan) -> None:
        """Check that the budget holds, and that no group could take its next level within it."""
        cost = self.analysis.cost.flops
        widths = np.array([len(group.kept) for group in plan.groups], dtype=np.int64)
        limit = int(Fraction(str(record.budget)) * self.flops)
        after, record.relaxed = cost(widths), bool(plan.solver.options["relaxed"])
        record.ratio = after / self.flops
        if after > limit or after != plan.budget.after or limit != plan.budget.limit:
            record.fail(
                f"costs {after}, the plan says {plan.budget.after}; allowed {limit}, it says {plan.budget.limit}"
            )
        if record.relaxed and record.aligned_reach <= record.budget:
            record.fail("unaligned widths, although aligned ones reach the budget")
        for group, allowed in enumerate(self.levels(relaxed=record.relaxed)):
            above = allowed[allowed > widths[group]]
            if widths[group] not in allowed:
                record.fail(f"{plan.groups[group].id} has {widths[group]} atoms, which is not a level")
            wider = widths.copy()
            wider[group] = above[0] if len(above) else widths[group]
            if len(above) and cost(wider) <= limit:
                record.fail(f"{plan.groups[group].id} could be {above[0]} wide instead of {widths[group]}")

    def _check_file(self, record: Record, target: Path, plan: Plan) -> None:
        """Check the written file: valid, faithful, of the predicted cost, and runnable like the original."""
        complaint = _complaint(target)
        if complaint is not None:
            (record.fail if self.valid else record.notes.append)(f"checker: {complaint}")
        written = api.load(target)
        check_fidelity(self.analysis, written, plan)
        again = api.analyze(written, api.AnalyzeOptions(self.analysis.input_shapes))
        widths = np.array([len(group.kept) for group in plan.groups], dtype=np.int64)
        for metric, slack in SLACK.items():
            expected = self.analysis.cost.metric(metric)(widths)
            found = again.cost.metric(metric)(again.cost.sizes)
            if abs(found - expected) > slack:
                record.fail(f"{metric}: {expected} predicted, {found} counted on the written file")
        for number, (shapes, before) in enumerate(zip(self.batches, self.runs, strict=True), start=1):
            after = _behaviour(target, shapes)
            if after != before:
                harmless = isinstance(before, str)
                (record.notes.append if harmless else record.fail)(f"batch {number}: {before} became {after}")

    def _verify(self, record: Record, target: Path, plan: Plan) -> None:
        """Compare the written file with the masked original."""
        started = time.perf_counter()
        found = api.verify(self.analysis, api.load(target), plan)
        record.verify_seconds = time.perf_counter() - started
        record.verdict, record.error, record.effect = found.status, found.error, found.effect
        if found.status != "verified":
            record.notes.append(f"verdict {found.status} (effect {found.effect:.1e})")
        if found.error > LARGEST_ERROR:
            record.notes.append(f"error {found.error:.1e} within the noise floor of {found.tensor}")


@contextmanager
def _noting(record: Record, step: str) -> Iterator[None]:
    """Turn whatever a step raises into a failure of the record."""
    try:
        yield
    except Exception as error:  # a third-party library may raise anything; all of it is a finding
        text = error.message if isinstance(error, GraphPruneError) else f"{type(error).__name__}: {error}"
        record.fail(f"{step}: {text[:400]}")


def batch_shapes(proto: onnx.ModelProto, shapes: Shapes) -> list[Shapes]:
    """Return input shapes at batch 1, and at batch 2 where the first dimension of an input is dynamic."""
    dynamic = set()
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in shapes and dims and dims[0].WhichOneof("value") != "dim_value":
            dynamic.add(value.name)
    one = {name: (1, *shape[1:]) if name in dynamic else tuple(shape) for name, shape in shapes.items()}
    two = {name: (2, *shape[1:]) if name in dynamic else tuple(shape) for name, shape in shapes.items()}
    return [one, two] if dynamic else [one]


def _complaint(path: Path) -> str | None:
    """Return what the full check of ONNX says against a file."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker raises several kinds, shape inference others
        return str(error).strip().splitlines()[0][:300]
    return None


def _behaviour(path: Path, shapes: Shapes) -> list[tuple[list[int], bool]] | str:
    """Run a model as users do; return shape and finiteness of each output, or what onnxruntime says against it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, _feed(session, shapes))
    except Exception as error:  # onnxruntime raises what it likes
        return str(error).strip().splitlines()[0][:300]
    return [
        (list(np.shape(value)), bool(np.isfinite(value).all())) for value in outputs if isinstance(value, np.ndarray)
    ]


def _feed(session: ort.InferenceSession, shapes: Shapes) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    kinds = {"float": np.float32, "float16": np.float16, "double": np.float64, "bool": np.bool_}
    feed: dict[str, Any] = {}
    for value in session.get_inputs():
        kind = value.type.removeprefix("tensor(").removesuffix(")")
        dtype = np.dtype(kinds.get(kind, kind))
        drawn = rng.standard_normal(shapes[value.name]) if dtype.kind == "f" else np.zeros(shapes[value.name])
        feed[value.name] = np.asarray(drawn).astype(dtype)
    return feed


def main() -> None:
    """Print one record per budget."""
    parser = argparse.ArgumentParser(description="Prune one model to several budgets and check everything.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--budgets", default="0.75,0.5,0.3")
    parser.add_argument("--shapes", type=json.loads, default={}, help='JSON: {"input": [1, 3, 224, 224]}')
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    budgets = [float(text) for text in options.budgets.split(",")]
    try:
        candidate = Candidate(options.model, {name: tuple(shape) for name, shape in options.shapes.items()})
    except GraphPruneError as error:
        for budget in budgets:
            record = Record(options.model.stem, budget)
            record.fail(f"analysis: {error.message}")
            print(json.dumps(asdict(record)), flush=True)
        return
    for budget in budgets:
        with tempfile.TemporaryDirectory(prefix="graphprune-zoo-") as folder:
            try:
                record = candidate.run(budget, Path(folder))
            except GraphPruneError as error:
                record = candidate.record(budget)
                record.fail(f"{type(error).__name__}: {error.message}")
        print(json.dumps(asdict(record)), flush=True)


if __name__ == "__main__":
    main()
