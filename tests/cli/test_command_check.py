# SPDX-License-Identifier: Apache-2.0
"""`graphprune check`: what belongs together passes, in any order of the files; what does not is named, exit code 2."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphprune.surgery.marks import FINETUNED, VERIFIED, put_marks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


@pytest.fixture
def folder(quick: Command, model: Path) -> Path:
    done = quick("solve", model, "--quick", "--flops", "0.5")
    assert done.code == 0, done.err
    return model.parent


def change_a_weight(path: Path, *, finetuned: bool) -> None:
    proto = onnx.load(path)
    head = next(tensor for tensor in proto.graph.initializer if tensor.name == "head")
    head.CopyFrom(numpy_helper.from_array(np.asarray(numpy_helper.to_array(head) + 1, np.float32), "head"))
    if finetuned:
        put_marks(proto, {FINETUNED: "labels", VERIFIED: "no (weights finetuned)"})
    onnx.save(proto, path)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "files",
    [
        ["net.plan.json"],
        ["net.plan.json", "net.onnx"],
        ["net.pruned.onnx"],
        ["net.onnx"],
        ["net.pruned.onnx", "net.onnx", "net.plan.json"],
    ],
)
def test_what_belongs_together_is_found_and_passes(quick: Command, files: list[str]) -> None:
    done = quick("check", *files)
    assert done.code == 0, done.err
    assert done.out == "ok  net.plan.json fits net.onnx, and net.pruned.onnx is what it makes\n"


def test_a_plan_alone_is_held_against_its_model(quick: Command, folder: Path) -> None:
    (folder / "net.pruned.onnx").unlink()
    done = quick("check", "net.plan.json", "--json")
    assert json.loads(done.out)["checked"] == [{"plan": "net.plan.json", "model": "net.onnx", "pruned": None}]


def test_other_weights_are_another_model(quick: Command, folder: Path, other_weights: Path) -> None:
    (folder / "net.pruned.onnx").unlink()
    done = quick("check", "net.plan.json", other_weights.name)
    assert (done.code, "the contents differ" in done.err) == (2, True)
    assert quick("check", "net.plan.json", other_weights.name, "--rebind").code == 0


def test_a_pruned_file_with_another_weight_is_not_what_the_plan_makes(quick: Command, folder: Path) -> None:
    change_a_weight(folder / "net.pruned.onnx", finetuned=False)
    done = quick("check", "net.plan.json")
    assert (done.code, "'head'" in done.err, "graphprune apply" in done.err) == (2, True, True)


def test_a_finetuned_file_may_have_other_weights(quick: Command, folder: Path) -> None:
    change_a_weight(folder / "net.pruned.onnx", finetuned=True)
    assert quick("check", "net.plan.json").code == 0


def test_a_wrong_figure_in_the_plan_is_told(quick: Command, folder: Path) -> None:
    plan = folder / "net.plan.json"
    plan.write_text(plan.read_text().replace('"after": ', '"after": 1', 1))
    assert quick("check", "net.plan.json").code == 2


@pytest.mark.parametrize(("files", "said"), [(["gone.json"], "does not exist"), (["net.onnx"], "there is no plan")])
def test_what_is_not_there_is_said(quick: Command, model: Path, files: list[str], said: str) -> None:
    assert model.exists()
    done = quick("check", *files)
    assert (done.code, said in done.err) == (2, True)


@pytest.mark.parametrize("files", [["half.onnx"], ["half.onnx", "half.plan.json", "net.onnx"], ["--hook", "half.onnx"]])
def test_a_spoilt_file_is_told_by_whatever_name(quick: Command, folder: Path, files: list[str]) -> None:
    (folder / "net.pruned.onnx").rename(folder / "half.onnx")
    (folder / "net.plan.json").rename(folder / "half.plan.json")
    assert quick("check", *files).out == "ok  half.plan.json fits net.onnx, and half.onnx is what it makes\n"
    change_a_weight(folder / "half.onnx", finetuned=False)
    assert quick("check", *files).code == 2
    (folder / "half.onnx").write_text("garbage")
    done = quick("check", *files)
    assert (done.code, "half.onnx" in done.err) == (2, True), done.out


def test_files_of_several_models_and_plans_find_one_another(quick: Command, folder: Path, other_weights: Path) -> None:
    assert other_weights.exists()
    assert quick("solve", "retrained.onnx", "--quick", "--flops", "0.6").code == 0
    quarter = ["-o", "quarter.onnx", "--plan", "quarter.plan.json"]
    assert quick("solve", "net.onnx", "--quick", "--flops", "0.25", *quarter).code == 0
    plans = ["net.plan.json", "quarter.plan.json", "retrained.plan.json"]
    models = ["net.onnx", "retrained.onnx", "net.pruned.onnx", "retrained.pruned.onnx", "quarter.onnx"]
    expected = {
        "ok  net.plan.json fits net.onnx, and net.pruned.onnx is what it makes",
        "ok  quarter.plan.json fits net.onnx, and quarter.onnx is what it makes",
        "ok  retrained.plan.json fits retrained.onnx, and retrained.pruned.onnx is what it makes",
    }
    for files in ([*models, *plans], sorted([*models, *plans]), ["--hook", *models[:2], *plans]):
        done = quick("check", *files)
        assert (done.code, {*done.out.splitlines()}) == (0, expected), done.err
    change_a_weight(folder / "quarter.onnx", finetuned=False)
    assert "'quarter.onnx' is not what the plan makes" in quick("check", *models, *plans).err


def test_a_hook_passes_over_what_no_plan_is_about(quick: Command, folder: Path, other_weights: Path) -> None:
    np.save(folder / "samples.npy", np.random.default_rng(0).normal(0, 1, (16, 3, 12, 12)).astype(np.float32))
    assert quick("quantize", "net.pruned.onnx", "--calib", "samples.npy", "--fp16").code == 0
    done = quick("check", "--hook", other_weights.name)
    assert (done.code, done.out) == (0, "--  retrained.onnx is not checked: no plan is about it\n"), done.err
    done = quick("check", "--hook", "net.plan.json", other_weights.name, "net.pruned.fp16.onnx")
    assert (done.code, len(done.out.splitlines())) == (0, 3), done.err
    assert "net.pruned.fp16.onnx is not checked: its numbers are in lower precision" in done.out
    done = quick("check", "net.plan.json", "net.pruned.fp16.onnx", "--json")
    assert json.loads(done.out)["passed_over"] == ["net.pruned.fp16.onnx"]
    assert quick("check", "net.pruned.fp16.onnx").code == 2


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", [".", ".."])
def test_a_folder_is_no_file(quick: Command, name: str) -> None:
    done = quick("check", name)
    assert (done.code, "is a folder" in done.err) == (2, True)


def test_a_model_that_is_not_found_is_asked_for(quick: Command, folder: Path) -> None:
    (folder / "net.onnx").rename(folder / "moved.onnx")
    done = quick("check", "net.plan.json")
    assert (done.code, "'net.onnx' would be its name" in done.err) == (2, True)
