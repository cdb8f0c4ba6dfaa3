# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve` with --recover and --finetune: the whole way in one command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from tiny_models import model as tiny

from graphprune.plan.file import read_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", image=rng.standard_normal((96, 3, 12, 12)).astype(np.float32))
    return tmp_path / "data.npz"


def output_error(quick: Command, model: Path, teacher: Path, data: Path) -> float:
    shown = quick("eval", model, "--data", data, "--teacher", teacher, "--json")
    assert shown.code == 0, shown.err
    return float(json.loads(shown.out)["output_error"])


@pytest.mark.parametrize("method", ["least-squares", "bn", "bias"])
def test_recovery_is_part_of_the_plan(quick: Command, model: Path, data: Path, method: str) -> None:
    output, plan_file = model.with_name("net.pruned.onnx"), model.with_name("net.plan.json")
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    alone = output_error(quick, output, model, data)
    done = quick("solve", model, "--flops", "0.5", "--calib", data, "--recover", method, "--force")
    assert done.code == 0, done.err
    assert f"{method}: output error" in done.out
    step, judged = read_plan(plan_file).steps
    assert (judged.name, judged.measure, judged.facts["held_out"]) == ("eval", "agreement", True)
    assert (step.name, step.method, step.applied) == ("recover", method, True)
    assert step.after < step.before
    assert output_error(quick, output, model, data) < alone
    assert "output error" in quick("inspect", plan_file).out
    shown = quick("verify", model, output, plan_file)
    assert shown.code == 0, shown.err
    assert f"differs from it in weights ('recovered: {method}')" in shown.out
    marks = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert marks["graphprune.recovered"] == method
    again = quick("apply", model, plan_file, "-o", model.with_name("again.onnx"), "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["steps"] == []  # those of the plan are not repeated
    assert "recover followed; here the model is only pruned" in "".join(json.loads(again.out)["notes"])


def test_the_whole_way(graphprune: Command, model: Path, data: Path) -> None:
    done = graphprune(
        *("solve", model, "--flops", "0.5", "--calib", data, "--recover", "least-squares"),
        *("--finetune", "--epochs", "1", "--json"),
    )
    assert done.code == 0, done.err
    steps = json.loads(done.out)["steps"]
    assert [step["name"] for step in steps] == ["recover", "finetune", "eval"]
    assert steps[0]["applied"]
    assert steps[1]["facts"]["hints"]  # what blocks give is learned beside the outputs
    assert all(step["after"] <= step["before"] for step in steps)
    stored = read_plan(model.with_name("net.plan.json")).steps
    assert [step.name for step in stored] == ["recover", "finetune", "eval"]
    onnx.checker.check_model(onnx.load(model.with_name("net.pruned.onnx")), full_check=True)


def test_a_step_names_labels_where_they_were_learned_from(quick: Command, model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((96, 3, 12, 12)).astype(np.float32), rng.integers(0, 5, 96)
    np.savez(tmp_path / "labelled.npz", image=x, labels=labels)
    command = ("solve", model, "--flops", "0.5", "--finetune", "--epochs", "1", "--data", tmp_path / "labelled.npz")
    done = quick(*command, "--json")
    assert done.code == 0, done.err
    learned, judged = json.loads(done.out)["steps"]
    assert learned["method"] == "distillation and labels"
    assert (judged["measure"], judged["facts"]["samples"], judged["facts"]["held_out"]) == ("accuracy", 9, True)
    assert learned["facts"]["samples"] + learned["facts"]["held_out"] == 96 - 9


def test_a_recovered_file_with_another_change_is_refused(quick: Command, model: Path, data: Path) -> None:
    output, plan_file = model.with_name("net.pruned.onnx"), model.with_name("net.plan.json")
    assert quick("solve", model, "--flops", "0.5", "--calib", data, "--recover", "bias").code == 0
    changed = onnx.load(output)
    changed.graph.node[0].attribute[0].ints[0] = 2
    onnx.save(changed, output)
    done = quick("verify", model, output, plan_file)
    assert done.code == 101
    assert "more than weights differs: the node" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recover", "bn"), "--recover needs samples"),
        (("--finetune", "--quick"), "--finetune needs samples"),
        (("--epochs", "1"), "--epochs is how long --finetune learns"),
        (("--data", "x.npz"), "'x.npz' does not exist"),
        (("--recover", "bn", "--calib", "missing.npz"), "missing.npz"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    quick: Command, model: Path, options: tuple[str, ...], message: str
) -> None:
    done = quick("solve", model, "--flops", "0.5", *options)
    assert done.code == 2
    assert message in done.err
    assert not model.with_name("net.pruned.onnx").exists()


def test_nothing_to_bring_back(quick: Command, model: Path, data: Path) -> None:
    done = quick("solve", model, "--flops", "1", "--calib", data, "--recover", "bn")
    assert done.code == 0, done.err
    assert "nothing had to be done" in done.out


STATEFUL = """(float[?,6] x, float[2,?,4] state, int64 rate) => (float[?,3] y, float[2,?,4] next) {
    last = Gather (state, one)
    joined = Concat <axis = 1> (x, last)
    wide = Gemm (joined, w0)
    live = Relu (wide)
    y = Gemm (live, w1)
    factor = Cast <to = 1> (rate)
    next = Mul (state, factor)
}"""


def test_samples_that_are_counted_on_different_axes(quick: Command, tmp_path: Path) -> None:
    path, rng = tmp_path / "stateful.onnx", np.random.default_rng(0)
    proto = tiny(STATEFUL, {"w0": (10, 16), "w1": (16, 3)}, one=np.int64(1))
    onnx.save(proto, path)
    x, state = (rng.standard_normal(shape).astype(np.float32) for shape in ((512, 6), (2, 512, 4)))
    np.savez(tmp_path / "data.npz", x=x, state=state, rate=np.int64(3))
    done = quick("solve", path, "--flops", "0.4", "--calib", tmp_path / "data.npz", "--recover", "least-squares")
    assert done.code == 0, done.err
    step, _ = read_plan(path.with_name("stateful.plan.json")).steps
    assert step.applied and step.after < step.before
    pruned = path.with_name("stateful.pruned.onnx")
    assert output_error(quick, pruned, path, tmp_path / "data.npz") < 1.0
    done = quick("finetune", pruned, "--teacher", path, "--data", tmp_path / "data.npz", "--epochs", "2")
    assert done.code in (0, 1), done.err
