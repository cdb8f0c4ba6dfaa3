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


def test_a_model_that_is_not_found_is_asked_for(quick: Command, folder: Path) -> None:
    (folder / "net.onnx").rename(folder / "moved.onnx")
    done = quick("check", "net.plan.json")
    assert (done.code, "'net.onnx' would be its name" in done.err) == (2, True)
