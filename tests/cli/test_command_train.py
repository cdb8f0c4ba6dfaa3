# SPDX-License-Identifier: Apache-2.0
"""`graphprune train`: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Outcome

QUICK = ("--flops", 0.6, "--epochs", 1, "--batch", 32, "--augment", "none", "--round-to", 1, "--device", "cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, image=random.standard_normal((96, 3, 12, 12)).astype(np.float32), labels=np.arange(96) % 5)
    return path


def test_three_files_that_belong_together(quick: Callable[..., Outcome], model: Path, data: Path) -> None:
    done = quick("train", model, "--data", data, *QUICK, "--method", "cac", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["command"] == "train"
    assert said["flops"]["ratio"] <= 0.6
    assert said["verification"]["status"] == "verified"
    trained, pruned, plan = (model.with_name(f"net.{name}") for name in ("trained.onnx", "pruned.onnx", "plan.json"))
    assert said["model"] == str(trained)
    assert not list(model.parent.glob("*.checkpoint*"))
    recorded = json.loads(plan.read_text())["solver"]
    assert (recorded["name"], recorded["seed"], recorded["options"]["epochs"]) == ("cac", 0, 1.0)
    assert recorded["options"]["method"]["estimator"] in ("monte-carlo", "first-order")
    assert quick("verify", trained, pruned, plan).code == 0
    again = quick("train", model, "--data", data, *QUICK)
    assert again.code == 2
    assert "exists" in again.err


def test_settings_and_a_closing_round(quick: Callable[..., Outcome], model: Path, data: Path) -> None:
    given = ("--set", "regularize=group-norm", "--set", "normalize=l2", "--finetune-epochs", 2)
    done = quick("train", model, "--data", data, *QUICK, *given)
    assert done.code == 0, done.err
    assert "finetun" in done.out
    plan = json.loads(model.with_name("net.plan.json").read_text())
    assert plan["solver"]["options"]["method"]["regularize"] == "group-norm"
    assert plan["solver"]["options"]["settings"] == {"normalize": "l2"}


def test_removals_are_made_good_unless_unwanted(quick: Callable[..., Outcome], model: Path, data: Path) -> None:
    plan = model.with_name("net.plan.json")
    assert quick("train", model, "--data", data, *QUICK).code == 0
    stages = [entry["stage"] for entry in json.loads(plan.read_text())["solver"]["trace"]]
    assert "recovery" in stages
    done = quick("train", model, "--data", data, *QUICK, "--recover", "none", "-f")
    assert done.code == 0
    assert "before pruning" in done.out
    assert "recovery" not in [entry["stage"] for entry in json.loads(plan.read_text())["solver"]["trace"]]


def test_the_gated_network_is_a_further_file(quick: Callable[..., Outcome], model: Path, data: Path) -> None:
    assert quick("train", model, "--data", data, *QUICK, "--method", "fbs").code == 0
    gated = model.with_name("net.pruned.gated.onnx")
    assert gated.exists()
    assert "expected FLOPs" in quick("inspect", model.with_name("net.plan.json")).out
    for name in ("pruned.onnx", "plan.json", "trained.onnx"):
        model.with_name(f"net.{name}").unlink()
    done = quick("train", model, "--data", data, *QUICK, "--method", "fbs")
    assert done.code == 2
    assert "exists" in done.err
    assert "train " not in done.err


def test_inspect_shows_which_classes_want_a_channel(quick: Callable[..., Outcome], model: Path, data: Path) -> None:
    assert quick("train", model, "--data", data, *QUICK, "--method", "white-box").code == 0
    plan = model.with_name("net.plan.json")
    done = quick("inspect", plan, "--votes", "*")
    assert done.code == 0, done.err
    recorded = json.loads(plan.read_text())
    lines = done.out.splitlines()
    for group in recorded["groups"]:
        start = next(at for at, line in enumerate(lines) if line.startswith(group["id"]))
        assert f"{len(group['kept'])} of {group['size']} stay" in lines[start]
        rows = [line.split() for line in lines[start + 4 : start + 4 + group["size"]]]
        assert sorted(int(row[0]) for row in rows) == list(range(group["size"]))
        assert {int(row[0]) for row in rows if row[1] == "stays"} == set(group["kept"])
        votes = [abs(float(row[2])) for row in rows]
        assert votes == sorted(votes, reverse=True)
        assert all(len(row) == 6 + 5 for row in rows)  # five classes
    said = json.loads(quick("inspect", plan, "--votes", "g001", "--json").out)
    assert said["classes"] == ["0", "1", "2", "3", "4"]
    (group,) = said["groups"]
    assert (group["id"], len(group["votes"]), len(group["by_class"][0])) == ("g001", 32, 5)
    assert all(abs(sum(row) - vote) < 1e-3 for row, vote in zip(group["by_class"], group["votes"], strict=True))


def test_votes_that_are_not_there(quick: Callable[..., Outcome], model: Path, data: Path) -> None:
    assert quick("train", model, "--data", data, *QUICK, "--method", "white-box").code == 0
    plan = model.with_name("net.plan.json")
    other = model.with_name("other.json")
    assert (
        quick("solve", model, "--quick", "--flops", 0.5, "--plan", other, "-o", model.with_name("other.onnx")).code == 0
    )
    broken = json.loads(plan.read_text())
    next(entry for entry in broken["solver"]["trace"] if entry.get("stage") == "votes")["sum"] = [1.0]
    wrong = model.with_name("wrong.plan.json")
    wrong.write_text(json.dumps(broken))
    cases = {(plan, "g9*"): "'g9*'", (other, "*"): "no votes", (model, "*"): "about a plan", (wrong, "*"): "fit"}
    for (file, pattern), message in cases.items():
        done = quick("inspect", file, "--votes", pattern)
        assert done.code == 2, (file, done.err)
        assert message in done.err


def test_nothing_is_written_on_a_dry_run(quick: Callable[..., Outcome], model: Path, data: Path) -> None:
    before = set(model.parent.iterdir())
    assert quick("train", model, "--data", data, *QUICK, "--dry-run").code == 0
    assert set(model.parent.iterdir()) == before


def test_refusals(quick: Callable[..., Outcome], model: Path, data: Path, tmp_path: Path) -> None:
    unlabelled = tmp_path / "data.npy"
    np.save(unlabelled, np.zeros((64, 3, 12, 12), dtype=np.float32))
    cases = {
        ("--method", "foo"): "there are cac",
        ("--method", "cac", "--set", "sparsity=1"): "unknown setting 'sparsity'",
        ("--method", "cac", "--set", "estimator=guess"): "there are first-order",
        ("--resume",): "no run to go on with",
    }
    for given, message in cases.items():
        done = quick("train", model, "--data", data, *QUICK, *given)
        assert done.code == 2
        assert message in done.err
    done = quick("train", model, "--data", unlabelled, *QUICK, "--method", "white-box")
    assert done.code == 2
    assert "needs labels" in done.err
    done = quick("train", model, "--data", data, "--epochs", 1)
    assert done.code == 2


def test_finetuning_under_a_regulariser(quick: Callable[..., Outcome], model: Path, data: Path) -> None:
    how = ("--epochs", 1, "--batch", 32, "--augment", "none", "--regularize", "group-norm", "--device", "cpu")
    done = quick("finetune", model, "--data", data, *how, "-o", model.with_name("sparse.onnx"))
    assert done.code == 0, done.err
    assert quick("solve", model.with_name("sparse.onnx"), "--quick", "--flops", 0.5).code == 0
