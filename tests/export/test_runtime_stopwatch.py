# SPDX-License-Identifier: Apache-2.0
"""Times in runtimes other than onnxruntime: measured there, kept apart, and refused with what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from latency_cases import TEXT, WEIGHTS
from made_up_runtimes import offer_runtimes
from tiny_models import model

import graphprune
from graphprune import Analysis, BudgetRequest, SolveOptions, extras
from graphprune.cost.latency.bench import paired_timing
from graphprune.cost.latency.cache import Cache
from graphprune.cost.latency.chunks import find_chunks
from graphprune.cost.latency.measure import latency_cost
from graphprune.cost.latency.probe import Sample, sample
from graphprune.errors import UnsupportedModelError, UsageError
from graphprune.export import runtime_stopwatch
from graphprune.export.runtime_stopwatch import RuntimeStopwatch, stopwatch_for
from graphprune.report.summary import plan_notes
from graphprune.solvers.moves.levels import machine_rule
from graphprune.trials.compare import Contest, compare
from graphprune.trials.meter import Measures

CLASSES = ("Counts", "Tells", "Whole", "Picky", "Fragile", "Dies", "Unlimited", "Absent")

# Runtimes with a clock of their own: each weight takes a microsecond, a call a millisecond and ten nanoseconds for
# every number in and out. Their networks really run, in onnxruntime.
TOYS = """
import os
import onnx
from graphprune.export.runtime import Runtime
from graphprune.export.runtimes.onnxruntime import open_with

NOW = [0.0]

def weights(path):
    return sum(onnx.numpy_helper.to_array(one).size for one in onnx.load(path).graph.initializer)

def convolutions(path):
    return [node.op_type for node in onnx.load(path).graph.node].count("Conv")

def is_last(path):
    return [node.op_type for node in onnx.load(path).graph.node] == ["Conv"]

class Counts(Runtime):
    clock = staticmethod(lambda: NOW[0])

    def version(self):
        return "1.0"

    def open(self, path, signature):
        run, seconds = open_with(path, signature, ["CPUExecutionProvider"]), 1e-3 + 1e-6 * weights(path)

        def timed(feeds):
            values = run(feeds)
            NOW[0] += seconds + 1e-8 * sum(value.size for value in (*feeds.values(), *values))
            return values

        return timed

class Tells(Counts):
    def profile(self, path, signature):
        return lambda feeds: 2e-6 * weights(path)

class Whole(Counts):
    def convert(self, model, signature, folder):
        if convolutions(model) > 1:
            raise ValueError("one layer is enough")
        return model

class Picky(Counts):
    def convert(self, model, signature, folder):
        if is_last(model):
            raise ValueError("no convolution without an activation")
        return model

class Fragile(Counts):
    def open(self, path, signature):
        if is_last(path):
            os._exit(3)
        return super().open(path, signature)

class Dies(Counts):
    def open(self, path, signature):
        if convolutions(path) == 1:
            os._exit(3)
        return super().open(path, signature)

class Unlimited(Counts):
    def open(self, path, signature):
        import resource
        if resource.getrlimit(resource.RLIMIT_CPU)[0] != resource.RLIM_INFINITY:
            raise ValueError("the clock of this process goes by ticks")
        return super().open(path, signature)

class Absent(Counts):
    modules = ("no_such_module",)
"""


@pytest.fixture
def analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analysis:
    """Return an analysed network; the runtimes are offered, and no time is known yet."""
    offer_runtimes(tmp_path, monkeypatch, TOYS, CLASSES)
    monkeypatch.setenv("GRAPHPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime_stopwatch, "_PROCESSES", 1)  # their clocks say the same in each
    path = tmp_path / "net.onnx"
    path.write_bytes(model(TEXT, WEIGHTS).SerializeToString())
    return graphprune.analyze(graphprune.load(path))


def full_layers(analysis: Analysis) -> list[Sample]:
    """Return the layers at full width."""
    return [sample(analysis, chunk, tuple(one.full for one in chunk.features)) for chunk in find_chunks(analysis)]


def count(one: Sample) -> int:
    """Return the weights of a layer."""
    return one.weight // 4


@pytest.mark.parametrize(("name", "each"), [("counts", 1_000), ("tells", 2_000)])
def test_a_layer_takes_what_is_its_own(analysis: Analysis, name: str, each: int) -> None:
    layers = full_layers(analysis)
    (taken,) = stopwatch_for(name).layers(layers)
    assert taken == {one.key: pytest.approx(each * count(one), rel=1e-3) for one in layers}


def test_whole_networks_run_in_turn_in_several_processes(monkeypatch: pytest.MonkeyPatch, analysis: Analysis) -> None:
    monkeypatch.setattr(runtime_stopwatch, "_PROCESSES", 2)
    whole, half = (
        model(TEXT, WEIGHTS | {"first": (width, 16, 1, 1), "second": (96, width, 1, 1)}) for width in (64, 32)
    )
    pair = whole.SerializeToString(), half.SerializeToString()
    timing = paired_timing(*pair, {"x": (1, 16, 16, 16)}, stopwatch_for("counts"))
    assert timing.runtime == "counts" and timing.pairs >= 6
    assert timing.before - timing.after == pytest.approx(1e-6 * (32 * 16 + 96 * 32))


@pytest.mark.skipif(sys.platform != "linux", reason="only there a limit on processor time is set")
def test_nothing_coarsens_the_clock(analysis: Analysis) -> None:
    """With a limit on processor time, Linux counts that of a process in ticks of milliseconds."""
    assert analysis.model.path is not None
    assert stopwatch_for("unlimited").rounds([analysis.model.path], {"x": (1, 16, 16, 16)})


def test_a_plan_meets_a_latency_of_that_runtime_and_says_so(analysis: Analysis) -> None:
    plan = graphprune.solve(analysis, BudgetRequest("latency", 0.6), SolveOptions(runtime="counts"))
    record = plan.solver.options["latency"]
    assert (record["runtime"], record["version"], record["layers"], record["alone"]) == ("counts", "1.0", 3, 3)
    assert plan.budget.before == pytest.approx(1e9 * (1e-3 + 1e-6 * 7936 + 1e-8 * 16 * 16 * 24), rel=0.01)
    assert plan.budget.measured is not None and plan.budget.measured <= 1.05 * plan.budget.limit
    assert plan.solver.options["round_to"] == machine_rule()


def test_what_was_measured_is_kept_for_its_runtime(analysis: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    request, options = BudgetRequest("latency", 0.6), SolveOptions(runtime="counts")
    plan = graphprune.solve(analysis, request, options)
    started: list[str] = []

    def child(module: str, *_: object, **__: object) -> dict[str, object]:
        started.append(module)
        return {"problem": "nothing is measured here", "step": "run"}

    monkeypatch.setattr(runtime_stopwatch, "run_child", child)
    assert graphprune.solve(analysis, request, options) == plan
    assert not started
    with pytest.raises(UnsupportedModelError, match="tells does not run the model: nothing is measured here"):
        graphprune.solve(analysis, request, SolveOptions(runtime="tells"))


def test_a_model_that_a_runtime_does_not_take_is_refused(analysis: Analysis) -> None:
    with pytest.raises(UnsupportedModelError, match="whole does not convert the model: one layer is enough") as caught:
        graphprune.solve(analysis, BudgetRequest("latency", 0.6), SolveOptions(runtime="whole"))
    assert "--check whole" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["picky", "fragile"])
def test_a_layer_that_does_not_run_alone_is_taken_by_its_work_and_told(analysis: Analysis, name: str) -> None:
    plan = graphprune.solve(analysis, BudgetRequest("latency", 0.6), SolveOptions(runtime=name))
    record = plan.solver.options["latency"]
    assert (record["layers"], record["alone"]) == (3, 2)
    (note,) = [note for note in plan_notes(plan) if "alone" in note]
    assert note.startswith(f"1 of 3 layers does not run alone in {name}")


def test_its_time_is_in_proportion_to_what_others_take(analysis: Analysis, tmp_path: Path) -> None:
    watch = stopwatch_for("picky")
    measured = latency_cost(analysis, watch, Cache(watch.environment, tmp_path / "own"), 16)
    narrow = measured.cost.change(analysis.cost.sizes, 1, 48)  # the last layer reads the second group
    assert (measured.parts, measured.alone) == (3, 2)
    assert narrow < 0 and measured.cost.before == pytest.approx(9e6, rel=0.1)


def test_a_runtime_that_ends_at_every_layer_is_refused(analysis: Analysis) -> None:
    with pytest.raises(UnsupportedModelError, match="dies cannot measure single layers"):
        graphprune.solve(analysis, BudgetRequest("latency", 0.6), SolveOptions(runtime="dies"))


def test_what_is_not_installed_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch, analysis: Analysis) -> None:
    with pytest.raises(UsageError, match="absent cannot be used here: no_such_module"):
        graphprune.solve(analysis, BudgetRequest("latency", 0.6), SolveOptions(runtime="absent"))
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="openvino is not installed") as caught:
        stopwatch_for("openvino")
    assert caught.value.hint == "pip install 'graphprune[runtimes]'"


def test_other_runtimes_use_one_thread() -> None:
    with pytest.raises(UsageError, match="mnn is measured on one thread, threads is 4"):
        SolveOptions(runtime="mnn", threads=4)


def test_results_of_a_comparison_are_timed_there(analysis: Analysis) -> None:
    contest = Contest(("uniform",), ("l1",), SolveOptions(runtime="counts"), Measures(bench=True))
    (trial,) = compare(analysis, BudgetRequest("flops", 0.5), contest)
    assert trial.latency is not None
    assert trial.latency[0] == pytest.approx(1e-3 + 1e-6 * 7936 + 1e-8 * 16 * 16 * 24)


def test_an_input_that_cannot_be_drawn_is_refused(analysis: Analysis) -> None:
    with pytest.raises(UnsupportedModelError, match="the input 'x' cannot be drawn"):
        RuntimeStopwatch("counts").rounds([model(TEXT, WEIGHTS).SerializeToString()], {})


@pytest.mark.parametrize(
    ("name", "module", "rules"),
    [
        ("openvino", "openvino", {"openvino", "openvino-avx2"}),
        ("mnn", "MNN", {"mnn"}),
        ("opencv", "cv2", {machine_rule()}),
    ],
)
def test_a_real_runtime_plans_for_its_own_time(analysis: Analysis, name: str, module: str, rules: set[str]) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'graphprune[runtimes]'")
    plan = graphprune.solve(analysis, BudgetRequest("latency", 0.9), SolveOptions(runtime=name))
    record = plan.solver.options["latency"]
    assert record["runtime"] == name and record["version"] and record["alone"] == record["layers"] == 3
    assert plan.solver.options["round_to"] in rules
    assert plan.budget.measured is not None and plan.budget.measured > 0
    pruned = graphprune.apply(analysis, plan)
    assert graphprune.verify(analysis, pruned, plan).status == "verified"
