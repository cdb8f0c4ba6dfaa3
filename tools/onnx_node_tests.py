# SPDX-License-Identifier: Apache-2.0
"""ONNX's own node tests through graphprune, and sandwiches around each of their operators.

::

    python tools/onnx_node_tests.py                       # the tests as they are
    python tools/onnx_node_tests.py --sandwiches          # and an operator between products (`node_sandwiches.py`)
    python tools/onnx_node_tests.py --sandwiches --only layer_normalization --keep failures/

The tests are made by the generator that comes with onnx; nothing is downloaded. Each is loaded, inspected, pruned to
half of what can go and verified if anything can, and normalised; the normalised graph must give what the original
gives on the data of the test. Sandwiches are loaded, inspected, pruned and verified.

Printed are counts by outcome, and every case that must not be: a foreign exception, a failed verification, a solve
that ends after solving, costs that were predicted wrong, a file that is refused though onnxruntime runs it, an
exceeded limit of time. Exit status 1 if there is any. Each case runs in a fork of a process in which everything is
imported (`forked_children.py`), so that ten thousand take minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from forked_children import use_forks
from node_sandwiches import VARIANTS, sandwiches, structure
from onnx import ModelProto

SECONDS = 60
_GOOD = ("verified", "vacuous", "whole", "does not run", "equal", "no data", "old")
_OLD = "supported are"
"""What is said of a version that is too old to be read at all."""


@dataclass(frozen=True)
class Case:
    """A model and what it is fed with.

    Attributes
    ----------
    feeds : dict of str to object
        Inputs with which it runs.
    open : bool
        Whether analysis has to be told the sizes of its inputs.
    """

    name: str
    model: ModelProto
    feeds: Mapping[str, Any]
    made: bool = False


@dataclass(frozen=True)
class Outcome:
    """How one case ended: a word, and what was said where it must not be."""

    kind: str
    text: str = ""

    @property
    def bad(self) -> bool:
        """Whether it must not be."""
        return self.kind not in _GOOD


def cases(pattern: str, variants: Sequence[str]) -> Iterator[Case]:
    """Return the node tests whose name fits, each followed by its sandwiches if variants of these are wanted.

    Of tests that differ in values or types only, one gets sandwiches; of operators that are spelt out as others, only
    those with stored operands.
    """
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about the values of some tests
        tests = collect_testcases(None)
    seen: set[bytes] = set()
    for test in tests:
        if not re.search(pattern, test.name):
            continue
        names = [value.name for value in test.model.graph.input]
        yield Case(test.name, test.model, dict(zip(names, test.data_sets[0][0], strict=False)))
        if variants and structure(test) not in seen:
            seen.add(structure(test))
            wanted = [each for each in variants if each == "stored" or "_expanded" not in test.name]
            for made in sandwiches(test, wanted):
                yield Case(made.name, made.model, made.feeds, made=True)


def examine(case: Case) -> list[Outcome]:
    """Inspect, prune and normalise a model; the outcomes of pruning and, for a node test, of normalising."""
    from graphprune import api
    from graphprune.errors import GraphPruneError, InternalError, VerificationError
    from graphprune.report.overview import model_json

    try:
        shapes = {name: value.shape for name, value in case.feeds.items()} if case.made else {}
        analysis = api.analyze(api.load(case.model), api.AnalyzeOptions(input_shapes=shapes))
        json.dumps(model_json(analysis))
        outcomes = [_prune(analysis, case)]
        if not case.made:
            outcomes.append(_normalise(analysis, case))
    except (InternalError, VerificationError) as error:
        return [Outcome(type(error).__name__, f"{error.message}\n{traceback.format_exc()}")]
    except GraphPruneError as error:
        return [_refused(case, error.message)]
    except Exception as error:
        return [Outcome("foreign", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")]
    return outcomes


def _prune(analysis: Any, case: Case) -> Outcome:
    """Cut a model to half of what can go, and verify that."""
    from graphprune import api
    from graphprune.errors import UnsupportedModelError

    cost = analysis.cost
    whole, least = (cost.flops(sizes) for sizes in (cost.sizes, np.ones_like(cost.sizes)))
    if whole == least:
        return Outcome("whole")
    budget = api.BudgetRequest("flops", (0.45 * least + 0.55 * whole) / whole)
    plan = api.solve(analysis, budget, api.SolveOptions(criterion="random", round_to=1))
    if plan.is_identity:
        return Outcome("whole")
    try:
        pruned = api.apply(analysis, plan)
    except UnsupportedModelError as error:
        if _runs(case):
            return Outcome("ends after solving", error.message)
        raise
    verification = api.verify(analysis, pruned, plan)
    after = api.analyze(api.load(pruned.proto), api.AnalyzeOptions(input_shapes=analysis.input_shapes))
    if after.cost.flops(after.cost.sizes) != plan.budgets[0].after:
        return Outcome("miscounted", f"{after.cost.flops(after.cost.sizes)}, not {plan.budgets[0].after} FLOPs")
    return Outcome(verification.status)


def _normalise(analysis: Any, case: Case) -> Outcome:
    """Normalise a model and run it on the data of the test."""
    from graphprune import api

    normalised = api.normalize(analysis).proto
    wanted, given = _run(case.model, case.feeds), _run(normalised, case.feeds)
    if isinstance(wanted, str):
        return Outcome("no data")
    if isinstance(given, str):
        return Outcome("unequal", f"it does not run: {given}")
    apart = [at for at, (one, other) in enumerate(zip(wanted, given, strict=True)) if not _same(one, other)]
    return Outcome("unequal", f"outputs {apart}") if apart else Outcome("equal")


def _refused(case: Case, message: str) -> Outcome:
    """Say whether onnxruntime runs what the library refuses; versions that it does not read are another matter."""
    if _OLD in message:
        return Outcome("old")
    said = _run(case.model, case.feeds)
    return Outcome("does not run") if isinstance(said, str) else Outcome("refused though it runs", message)


def _runs(case: Case) -> bool:
    return not isinstance(_run(case.model, case.feeds), str)


def _run(model: ModelProto, feeds: Mapping[str, Any]) -> list[Any] | str:
    """Return what onnxruntime makes of a model, or what it says where it does not run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        known = {value.name for value in session.get_inputs()}
        outputs: list[Any] = session.run(None, {name: value for name, value in feeds.items() if name in known})
    except Exception as error:  # onnxruntime's exceptions share no base
        return f"{type(error).__name__}: {error}"
    return outputs


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_same, one, other))
    if not isinstance(one, np.ndarray):
        return bool(one == other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    grain = max(8 * float(np.finfo(one.dtype).eps), 1e-5)
    return bool(np.allclose(one, other, rtol=grain, atol=grain, equal_nan=True))


def in_fork(case: Case, report: Path) -> list[Outcome]:
    """Examine a case in a fork of this process, under a limit of time."""
    report.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        try:
            signal.alarm(SECONDS)
            warnings.simplefilter("ignore")
            report.write_text(json.dumps([vars(outcome) for outcome in examine(case)]), "utf-8")
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if report.exists() and not status:
        return [Outcome(**each) for each in json.loads(report.read_text("utf-8"))]
    out_of_time = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    return [Outcome("time", f"more than {SECONDS} s") if out_of_time else Outcome("died", f"status {status}")]


def main() -> int:
    """Run all cases and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sandwiches", action="store_true", help="make models around each operator, too")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of the sandwiches")
    parser.add_argument("--only", default="", metavar="REGEX", help="names of tests")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every n-th sandwich")
    parser.add_argument("--progress", action="store_true", help="say on standard error what is being run")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the models that ended badly")
    options = parser.parse_args()
    use_forks()
    for case in cases("^test_relu$", VARIANTS[:1]):
        if case.made:
            examine(case)  # in this process: what it imports, no fork has to import again
    variants = options.variants.split(",") if options.sandwiches else []
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    bad, started, made = 0, time.monotonic(), 0
    with TemporaryDirectory(prefix="node-tests-") as folder:
        for case in cases(options.only, variants):
            made += case.made
            if case.made and made % options.every:
                continue
            outcomes = in_fork(case, Path(folder) / "report.json")
            if sys.stderr.isatty() or options.progress:
                print(f"\r{sum(map(Counter.total, counts.values()))} {case.name:<100.100}", end="", file=sys.stderr)
            counts[case.made].update(outcome.kind for outcome in outcomes)
            for outcome in outcomes:
                if outcome.bad:
                    bad += 1
                    print(f"{case.name}: {outcome.kind}: {outcome.text}\n", flush=True)
            if options.keep and any(outcome.bad for outcome in outcomes):
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{case.name.replace('/', '-')}.onnx").write_bytes(case.model.SerializeToString())
    for title, count in zip(("node tests", "sandwiches"), counts.values(), strict=True):
        for kind, number in count.most_common():
            print(f"{number:7} {title}: {kind}")
    print(f"{bad} bad, {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
