# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve`, end to end: the files it writes, what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from graphprune.plan.file import read_plan
from graphprune.plan.schema import digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def run_model(path: Path, batch: int = 2) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((batch, 3, 12, 12)).astype(np.float32)
    return session.run(None, {"image": image})[0]


def test_half_the_flops(graphprune: Command, model: Path) -> None:
    before = model.read_bytes()
    done = graphprune("solve", model, "--quick", "--flops", "0.5", "-v")
    assert done.code == 0, done.err
    output, plan_file = model.with_name("net.pruned.onnx"), model.with_name("net.plan.json")
    assert model.read_bytes() == before
    assert sorted(path.name for path in model.parent.iterdir()) == ["net.onnx", "net.plan.json", "net.pruned.onnx"]

    onnx.checker.check_model(onnx.load(output), full_check=True)
    assert run_model(output).shape == (2, 5)
    plan = read_plan(plan_file)
    assert plan.budget.limit == plan.budget.before // 2
    assert plan.budget.limit * 0.8 < plan.budget.after <= plan.budget.limit
    assert sum(layer.flops_after for layer in plan.layers) == plan.budget.after

    for word in ("layer", "flops", "params", "file size", "verified", "tensors equal", str(output), str(plan_file)):
        assert word in done.out
    assert "analysis: " in done.err
    assert "\x1b" not in done.out


def test_the_result_can_be_traced_to_the_original(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.4", "--round-to", "1").code == 0
    original, pruned = onnx.load(model), onnx.load(model.with_name("net.pruned.onnx"))
    marks = {entry.key: entry.value for entry in pruned.metadata_props}
    assert marks["graphprune.plan"] == digest(read_plan(model.with_name("net.plan.json")))
    assert marks["graphprune.verified"] == "true"
    kept = json.loads(marks["graphprune.kept"])
    assert kept
    arrays = [
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        for proto in (original, pruned)
    ]
    for name, axes in kept.items():
        assert list(axes) == ["0"]
        whole = np.take(arrays[0][name], axes["0"], axis=0)
        into = kept.get({"first": "stem", "second": "first"}.get(name, ""), {}).get("0")
        expected = whole if into is None else np.take(whole, into, axis=1)
        np.testing.assert_array_equal(arrays[1][name], expected)


def test_one_keeps_every_byte(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--quick", "--flops", "1")
    assert done.code == 0, done.err
    assert model.with_name("net.pruned.onnx").read_bytes() == model.read_bytes()
    assert read_plan(model.with_name("net.plan.json")).is_identity


@pytest.mark.parametrize(
    "extra", [["--solver", "uniform"], ["--criterion", "l1"], ["--criterion", "random", "--seed", "3"]]
)
def test_other_methods(quick: Command, model: Path, extra: list[str]) -> None:
    done = quick("solve", model, "--params", "0.6", "--json", *extra)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["params"]["after"] <= 0.6 * report["params"]["before"]
    assert report["solver"][{"--solver": "name", "--criterion": "criterion"}[extra[0]]] == extra[1]


def test_json_is_one_object_and_nothing_else(graphprune: Command, model: Path) -> None:
    done = graphprune("solve", model, "--quick", "--flops", "0.5", "--json", "--bench")
    assert done.code == 0, done.err
    assert all(line.endswith(" ...") for line in done.err.splitlines())  # what takes long on a busy machine is named
    report = json.loads(done.out)
    assert report["command"] == "solve"
    assert report["output"] == str(model.with_name("net.pruned.onnx"))
    assert report["verification"]["status"] == "verified"
    assert report["verification"]["error"] <= report["verification"]["tolerance"]
    assert report["file_size"]["after"] == model.with_name("net.pruned.onnx").stat().st_size
    assert report["bench"]["ratio"] > 0
    plan = read_plan(model.with_name("net.plan.json"))
    assert plan.timing is not None
    assert asdict(plan.timing) == report["bench"]
    assert json.loads(graphprune("inspect", "net.plan.json", "--json").out)["timing"] == report["bench"]
    assert "median of 25 pairs" in graphprune("inspect", "net.plan.json").out
    assert {layer["op"] for layer in report["layers"]} == {"Conv", "Gemm"}


def test_a_dry_run_writes_nothing(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--quick", "--flops", "0.5", "--dry-run", "--bench")
    assert done.code == 0, done.err
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]
    assert "verified" in done.out
    assert not any(line.startswith("output") for line in done.out.splitlines())


def test_the_same_request_gives_the_same_bytes(graphprune: Command, model: Path, tmp_path: Path) -> None:
    for index, seed in enumerate(("0", "77")):
        done = graphprune(
            *("solve", model, "--flops", "0.5", "-o", tmp_path / f"{index}.onnx", "--plan", tmp_path / f"{index}.json"),
            env={"PYTHONHASHSEED": seed, "LC_ALL": "C"},
        )
        assert done.code == 0, done.err
    for suffix in ("onnx", "json"):
        assert (tmp_path / f"0.{suffix}").read_bytes() == (tmp_path / f"1.{suffix}").read_bytes()


def test_constraints_on_single_groups(quick: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "widths.yaml").write_text("first: 12\n")
    constraints = ("--skip", "stem", "--widths", "widths.yaml")
    done = quick("solve", model, "--flops", "0.3", *constraints)
    assert done.code == 1, done.out
    assert "groups that --skip names" in done.err and "given widths (--widths)" in done.err
    done = quick("solve", model, "--flops", "0.5", *constraints)
    assert done.code == 0, done.err
    plan = read_plan(tmp_path / "net.plan.json")
    assert [len(group.kept) for group in plan.groups] == [16, 12]
    assert plan.solver.options["constraints"] == {"skip": ["stem"], "widths": {"first": 12}}


def test_a_plan_to_start_from(quick: Command, model: Path, tmp_path: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5", "--criterion", "random", "--seed", "3").code == 0
    done = quick("solve", model, "--quick", "--flops", "0.3", "--from", "net.plan.json", "-o", "narrow.onnx", "--force")
    assert done.code == 2 and "is the input" in done.err  # the default place of the plan
    done = quick(
        *("solve", model, "--flops", "0.3", "--from", "net.plan.json", "-o", "narrow.onnx", "--plan", "narrow.json")
    )
    assert done.code == 0, done.err
    plans = [read_plan(tmp_path / name) for name in ("net.plan.json", "narrow.json")]
    for wide, narrow in zip(*(plan.groups for plan in plans), strict=True):
        assert set(narrow.kept) <= set(wide.kept) or set(narrow.kept) >= set(wide.kept)
    assert plans[1].budget.after <= plans[1].budget.limit < plans[0].budget.after


def test_input_shapes_are_what_costs_are_counted_for(quick: Command, model: Path) -> None:
    flops = {}
    for batch in (1, 3):
        done = quick(
            "solve",
            model,
            "--quick",
            "--flops",
            "0.5",
            "--dry-run",
            "--json",
            "--input-shape",
            f"image={batch}x3x12x12",
        )
        flops[batch] = json.loads(done.out)["flops"]["before"]
    assert flops[3] == 3 * flops[1]


@pytest.mark.parametrize(
    ("arguments", "code", "messages"),
    [
        (["--flops", "0.0001"], 1, ["cannot reach flops 0.0001", "the smallest reachable is 0.0", "inspect"]),
        (["--flops", "0.3", "--min-keep", "16"], 1, ["cannot reach", "--min-keep"]),
        (["--flops", "0.3", "--round-to", "16"], 1, ["cannot reach", "--round-to"]),
        (["--flops", "0.3", "--max-prune", "0.2"], 1, ["cannot reach", "at most 20 % off a group (--max-prune)"]),
        (["--flops", "0.5", "--max-prune", "nan"], 2, ["at most nan"]),
        (["--flops", "0.5", "--skip", "firts"], 2, ["--skip: 'firts' names no group", "'first'"]),
        (["--flops", "0.5", "--only", "re:("], 2, ["is not a regular expression"]),
        (["--flops", "0.5", "--widths", "none.yaml"], 2, ["cannot read the widths file 'none.yaml'"]),
        (["--flops", "0.5", "--from", "none.json"], 2, ["no plan file at 'none.json'"]),
        (["--flops", "0.5", "--solver", "bisect"], 2, ["unknown solver 'bisect'", "did you mean bisection?"]),
        (["--flops", "0.5", "--criterion", "L1"], 2, ["unknown criterion 'L1'", "did you mean l1?"]),
        (["--flops", "0.5", "--input-shape", "imag=1x3x12x12"], 2, ["'imag'"]),
        (["--flops", "0.5", "--input-shape", "image=1x3x12"], 2, ["'image'"]),
        (["--flops", "0.5", "-o", "net.onnx", "--force"], 2, ["is the input"]),
        (["--flops", "0.5", "-o", "./link.onnx", "--force"], 2, ["is the input"]),
        (["--flops", "0.5", "-o", "hard.onnx", "--force"], 2, ["is the input"]),
        (["--flops", "0.5", "--plan", "net.onnx", "--force"], 2, ["is the input"]),
        (["--flops", "0.5", "-o", "existing.onnx"], 2, ["'existing.onnx' exists", "--force"]),
        (["--flops", "0.5", "-o", "missing/out.onnx"], 2, ["folder does not exist"]),
        (["--flops", "0.5", "-o", "net.onnx/out.onnx"], 2, ["cannot be written"]),
        (["--flops", "0.5", "-o", "."], 2, ["is a folder"]),
        (["--flops", "0.5", "-o", "x" * 300], 2, ["cannot be written"]),
        (["--flops", "0.5", "-o", "same", "--plan", "same"], 2, ["would both go to 'same'"]),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(
    quick: Command, model: Path, arguments: list[str], code: int, messages: list[str]
) -> None:
    folder = model.parent
    (folder / "link.onnx").symlink_to(model)
    os.link(model, folder / "hard.onnx")
    (folder / "existing.onnx").write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = quick("solve", "net.onnx", *arguments)
    assert done.code == code, done.err
    assert done.out == ""
    assert len([line for line in done.err.splitlines() if not line.endswith(" ...")]) <= 2  # slow stages are named
    for message in messages:
        assert message in done.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"\x08\x07", b"not a model", b'{"json": 1}'])
def test_what_is_no_model_is_refused(quick: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.onnx").write_bytes(content)
    done = quick("solve", "odd.onnx", "--quick", "--flops", "0.5")
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert len([line for line in done.err.splitlines() if not line.endswith(" ...")]) <= 2  # slow stages are named


def test_a_model_of_custom_operators_needs_a_word(quick: Command, model: Path) -> None:
    proto = onnx.load(model)
    proto.graph.node.append(onnx.helper.make_node("Sharpen", ["scores"], ["sharp"], domain="example.custom"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("sharp", onnx.TensorProto.FLOAT, ["n", 5]))
    proto.opset_import.append(onnx.helper.make_opsetid("example.custom", 1))
    onnx.save(proto, model)
    done = quick("solve", model, "--flops", "0.5")
    assert done.code == 2
    assert "'example.custom'" in done.err
    assert "--unverified" in done.err
    assert not model.with_name("net.pruned.onnx").exists()
    done = quick("solve", model, "--quick", "--flops", "0.5", "--unverified")
    assert done.code == 0, done.err
    assert "NO: onnxruntime" in done.out and "not proven" in done.out
    marks = {entry.key: entry.value for entry in onnx.load(model.with_name("net.pruned.onnx")).metadata_props}
    assert marks["graphprune.verified"] == "no (unverified)"


@pytest.mark.parametrize(
    ("metric", "target", "limit"),
    [("params", "9k", 9_000), ("size", "30kB", 30_000), ("memory", "0.6", None), ("memory", "25kB", 25_000)],
)
def test_other_budgets_hold(quick: Command, model: Path, metric: str, target: str, limit: int | None) -> None:
    done = quick("solve", model, "--quick", f"--{metric}", target, "--json")
    assert done.code == 0, done.err
    budget = read_plan(model.with_name("net.plan.json")).budget
    assert budget.metric == metric
    assert budget.limit == (limit or int(0.6 * budget.before))
    assert 0.5 * budget.limit < budget.after <= budget.limit < budget.before
    if metric == "size":
        assert model.with_name("net.pruned.onnx").stat().st_size <= limit


def test_several_budgets_hold_at_once(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.6", "--params", "0.4", "--size", "0.9").code == 0
    budgets = read_plan(model.with_name("net.plan.json")).budgets
    assert [budget.metric for budget in budgets] == ["flops", "params", "size"]
    assert all(budget.after <= budget.limit for budget in budgets)


def test_a_latency_budget_is_measured(
    quick: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHPRUNE_CACHE", str(tmp_path / "cache"))
    done = quick("solve", model, "--quick", "--latency", "0.95", "--round-to", "4")
    if done.code == 1:  # a network this small may not become faster at all
        assert "latency" in done.err
        return
    assert done.code == 0, done.err
    plan = read_plan(model.with_name("net.plan.json"))
    assert plan.budget.metric == "latency"
    assert plan.budget.after <= plan.budget.limit < plan.budget.before
    assert plan.is_identity or (plan.budget.measured or 0) > 0
    assert plan.solver.options["latency"]["rounds"] >= 1
    assert any((tmp_path / "cache").iterdir())
