# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve` where nobody gives any data: accuracy comes back from the file, and what was done is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from source_tree import ROOT
from tiny_models import model as tiny

from graphprune.plan.file import read_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def accuracy(quick: Command, model: Path) -> float:
    shown = quick("eval", model, "--data", ROOT / "examples" / "digits_test.npz", "--json")
    assert shown.code == 0, shown.err
    return float(json.loads(shown.out)["top1"])


def test_the_first_command_of_the_readme_keeps_what_the_network_knows(quick: Command, tmp_path: Path) -> None:
    arguments = ("solve", ROOT / "examples" / "digits.onnx", "--flops", "0.5", "-o", "made.onnx", "--plan", "made.json")
    done = quick(*arguments)
    assert done.code == 0, done.err
    assert accuracy(quick, tmp_path / "made.onnx") > 0.97
    plan = read_plan(tmp_path / "made.json")
    assert plan.solver.name == "stage-wise"
    (step,) = plan.steps
    assert (step.name, step.method, step.applied) == ("recover", "least-squares", True)
    assert "no accuracy" in step.measure
    assert "agreement" not in step.facts
    assert step.facts["data"] == "synthetic"
    assert step.facts["knowledge"] == "statistics of BatchNormalization"
    before, after = step.facts["mismatch"]
    assert after < before
    shown = quick("verify", ROOT / "examples" / "digits.onnx", tmp_path / "made.onnx", tmp_path / "made.json")
    assert shown.code == 0, shown.err


def test_quick_only_prunes(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--flops", "0.5", "--quick")
    assert done.code == 0, done.err
    plan = read_plan(model.with_name("net.plan.json"))
    assert (plan.solver.name, plan.steps) == ("bisection", ())


def test_the_same_file_gives_the_same_result(quick: Command, model: Path) -> None:
    for name in ("one", "two"):
        done = quick("solve", model, "--flops", "0.5", "-o", f"{name}.onnx", "--plan", f"{name}.json")
        assert done.code == 0, done.err
    assert model.with_name("one.onnx").read_bytes() == model.with_name("two.onnx").read_bytes()


@pytest.mark.parametrize("extra", [(), ("--recover", "bn"), ("--solver", "sensitivity")])
def test_made_samples_can_be_asked_for(quick: Command, model: Path, extra: tuple[str, ...]) -> None:
    done = quick("solve", model, "--flops", "0.5", "--calib", "synthetic:64", *extra, "--json")
    assert done.code == 0, done.err
    (step,) = json.loads(done.out)["steps"]
    assert step["facts"]["samples"] + step["facts"]["held_out"] == 64
    assert step["facts"]["made"] == 256


def test_where_the_file_tells_nothing_it_says_so(quick: Command, tmp_path: Path) -> None:
    proto = tiny(
        "(float[n, 6] state) => (float[n, 3] y) { a = MatMul (state, w) b = Relu (a) y = MatMul (b, v) }",
        {"w": (6, 16), "v": (16, 3)},
    )
    onnx.save(proto, tmp_path / "net.onnx")
    done = quick("solve", tmp_path / "net.onnx", "--flops", "0.5", "--json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert shown["steps"] == []
    assert "accuracy is not brought back: no samples can be made for input 'state'" in "".join(shown["notes"])
    asked = quick("solve", tmp_path / "net.onnx", "--flops", "0.5", "--calib", "synthetic", "--force")
    assert asked.code == 2
    assert "give real ones" in asked.err


def test_recover_takes_made_samples_too(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--flops", "0.5", "--quick").code == 0
    done = quick(
        *("recover", "net.pruned.onnx", "--teacher", model, "--plan", "net.plan.json", "--calib", "synthetic:64")
    )
    assert done.code == 0, done.err
    assert "on made samples, which is no accuracy" in done.out
    assert "agreement" not in done.out
    shown = quick("verify", model, "net.pruned.recovered.onnx", "net.plan.json")
    assert shown.code == 0, shown.err


def test_quick_does_not_go_with_a_method(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--flops", "0.5", "--quick", "--recover", "bn", "--calib", "synthetic")
    assert done.code == 2
    assert "--quick recovers nothing" in done.err


def test_made_samples_can_be_kept(quick: Command, model: Path) -> None:
    done = quick("synthesize", model, "-o", "made.npz", "--count", "20", "--preview", "grid.png")
    assert done.code == 0, done.err
    with np.load(model.with_name("made.npz")) as arrays:
        assert arrays["image"].shape == (20, 3, 12, 12)
    assert model.with_name("grid.png").read_bytes().startswith(b"\x89PNG")
    done = quick("solve", model, "--flops", "0.5", "--calib", "made.npz")
    assert done.code == 0, done.err


def test_fine_samples_are_refined_and_it_is_said(quick: Command, model: Path) -> None:
    done = quick("synthesize", model, "-o", "made.npz", "--count", "20", "--quality", "fine")
    assert done.code == 0, done.err
    assert "by the work of 60 forward passes" in done.out
    done = quick("solve", model, "--flops", "0.5", "--calib", "synthetic:fine:32", "--json")
    assert done.code == 0, done.err
    (step,) = json.loads(done.out)["steps"]
    assert step["facts"]["refined"]["passes"] == 60


def test_widths_are_measured_on_refined_samples_as_on_real_ones(quick: Command, model: Path) -> None:
    """As they come without refining, their outputs say little, and single stages are looked at."""
    for samples, solver in (("synthetic:32", "stage-wise"), ("synthetic:fine:32", "sensitivity")):
        done = quick("solve", model, "--flops", "0.5", "--calib", samples, "--plan", "made.json", "--force")
        assert done.code == 0, done.err
        assert read_plan(model.with_name("made.json")).solver.name == solver


def test_a_network_learns_from_made_samples(quick: Command, model: Path) -> None:
    few = ("--calib", "synthetic:32", "--solver", "uniform")
    learning = ("--finetune", "--data", "synthetic:64", "--epochs", "0.02")
    done = quick("solve", model, "--flops", "0.5", *few, *learning, "--json")
    assert done.code == 0, done.err
    _, step = json.loads(done.out)["steps"]
    assert (step["name"], step["method"], step["measure"]) == ("finetune", "distillation", "loss on made samples")
    assert step["facts"]["different"] == 64
    assert step["facts"]["held_out"] == 32
    assert step["facts"]["hints"] == 1
    done = quick("finetune", model.with_name("net.pruned.onnx"), "--data", "synthetic:64")
    assert done.code == 2
    assert "made have no labels" in done.err


def test_what_cannot_be_made_is_not_learned_from(quick: Command, tmp_path: Path) -> None:
    proto = tiny(
        "(float[n, 6] state) => (float[n, 3] y) { a = MatMul (state, w) b = Relu (a) y = MatMul (b, v) }",
        {"w": (6, 16), "v": (16, 3)},
    )
    onnx.save(proto, tmp_path / "net.onnx")
    done = quick("solve", tmp_path / "net.onnx", "--flops", "0.5", "--finetune")
    assert done.code == 2
    assert "--finetune has nothing to learn from" in done.err
    done = quick("solve", tmp_path / "net.onnx", "--flops", "0.5", "--copies", "2")
    assert done.code == 2 and "--copies has nothing to make copies of" in done.err, done.err


def test_finetune_takes_made_samples_and_says_that_they_are_made(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--flops", "0.5", "--quick").code == 0
    pruned = model.with_name("net.pruned.onnx")
    learning = ("--data", "synthetic:64", "--epochs", "0.02", "--rate", "0.01", "--device", "cpu")
    done = quick("finetune", pruned, "--teacher", model, *learning)
    assert done.code == 0, done.err
    assert "all of them made, so none of this is an accuracy" in done.out
    assert "32 held out" in done.out
    assert "only outputs are learned" not in done.err
    model.with_name("net.plan.json").unlink()
    done = quick("finetune", pruned, "--teacher", model, *learning, "--force")
    assert done.code == 0, done.err
    assert "lies beside it, so only outputs are learned" in " ".join(done.err.split())


def test_a_criterion_that_is_named_decides_which_channels_stay(quick: Command, model: Path) -> None:
    kept = {}
    for name in ("l1", "fpgm"):
        done = quick("solve", model, "--flops", "0.5", "--criterion", name, "--plan", f"{name}.json", "--force")
        assert done.code == 0, done.err
        assert f"solver  bisection: --criterion {name} decides" in done.err
        kept[name] = [group["kept"] for group in json.loads(model.with_name(f"{name}.json").read_text())["groups"]]
    assert kept["l1"] != kept["fpgm"]


def test_made_samples_are_added_to_a_few_and_judge_nothing(
    quick: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).standard_normal((8, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "few.npz", image=images)
    command = ("solve", model, "--flops", "0.5", "--calib", tmp_path / "few.npz", "--solver", "bisection", "--json")
    done = quick(*command, "--add-synthetic", "32")
    assert done.code == 0, done.err
    (step,) = (step for step in json.loads(done.out)["steps"] if step["name"] == "recover")
    assert step["facts"]["added"]["samples"] == 32
    assert step["facts"]["samples"] == 7 + 32 and step["facts"]["held_out"] == 1
    bare = quick("solve", model, "--flops", "0.5", "--quick", "--force")
    assert bare.code == 0, bare.err
    pruned, plan = model.with_name("net.pruned.onnx"), model.with_name("net.plan.json")
    few = ("--calib", tmp_path / "few.npz", "--add-synthetic", "32")
    recovered = quick("recover", pruned, "--teacher", model, "--plan", plan, *few, "--json")
    assert recovered.code == 0, recovered.err
    assert json.loads(recovered.out)["samples"] == 7 + 32
    alone = quick("solve", model, "--flops", "0.5", "--add-synthetic", "32", "--force")
    assert alone.code == 2 and "--calib synthetic:fine:32" in alone.err
    made = quick("solve", model, "--flops", "0.5", "--calib", "synthetic", "--add-synthetic", "32", "--force")
    assert made.code == 2 and "adds to samples of --calib" in made.err
    monkeypatch.setattr("graphprune.extras.find_spec", lambda name: None)
    without = quick(*command, "--add-synthetic", "32", "--force")
    assert without.code == 2 and "graphprune[train]" in without.err


def test_copies_of_images_are_fitted_to_and_judge_nothing(quick: Command, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", image=np.random.default_rng(0).standard_normal((8, 3, 12, 12)).astype(np.float32))
    command = ("solve", model, "--flops", "0.5", "--calib", tmp_path / "few.npz", "--solver", "bisection", "--json")
    plain, copied = (quick(*command, *more, "--force") for more in ((), ("--copies", "3")))
    steps = []
    for done in (plain, copied):
        assert done.code == 0, done.err
        steps += [step for step in json.loads(done.out)["steps"] if step["name"] == "recover"]
    assert [step["facts"].get("copies") for step in steps] == [None, 3]
    assert all(step["facts"]["samples"] == 7 and step["facts"]["held_out"] == 1 for step in steps)
    assert steps[0]["before"] == steps[1]["before"] and steps[0]["after"] != steps[1]["after"]
    plan, pruned = model.with_name("net.plan.json"), model.with_name("net.pruned.onnx")
    few = ("--teacher", model, "--plan", plan, "--calib", tmp_path / "few.npz", "--copies", "3", "--dry-run")
    assert quick("recover", pruned, *few).code in (0, 1)  # it has been recovered already
    bare = quick("solve", model, "--flops", "0.5", "--quick", "--copies", "3", "--force")
    assert bare.code == 2 and "--copies is for recovery" in bare.err


@pytest.mark.parametrize(("count", "advised"), [(8, True), (130, False)])
def test_few_samples_are_told_how_to_become_more(
    quick: Command, model: Path, tmp_path: Path, count: int, *, advised: bool
) -> None:
    images = np.random.default_rng(0).standard_normal((count, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "given.npz", image=images)
    done = quick("solve", model, "--flops", "0.5", "--calib", tmp_path / "given.npz", "--solver", "bisection")
    assert done.code == 0, done.err
    assert ("--add-synthetic 512" in done.out) is advised
