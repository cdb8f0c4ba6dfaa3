# SPDX-License-Identifier: Apache-2.0
"""`--inherit merge`, `--lossless` and `--allow-empty` from the command line, and their plans afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from graphprune.plan.file import read_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def edit(plan: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(plan.read_text())
    change(content)
    edited = plan.with_name("edited.json")
    edited.write_text(json.dumps(content))
    return edited


@pytest.fixture
def merged(quick: Command, model: Path) -> Path:
    done = quick("solve", model, "--flops", "0.5", "--inherit", "merge", "-o", "solved.onnx", "--plan", "net.plan.json")
    assert done.code == 0, done.err
    assert "removed channels are merged into kept ones" in done.out
    return model.with_name("net.plan.json")


def test_a_merging_plan_is_applied_and_verified_from_its_file(
    quick: Command, model: Path, merged: Path, other_weights: Path
) -> None:
    plan = read_plan(merged)
    assert plan.solver.options["inherit"] == "merge"
    assert sum(len(group.merged) for group in plan.groups) > 0
    assert quick("apply", model, merged, "-o", "again.onnx").code == 0
    assert model.with_name("again.onnx").read_bytes() == model.with_name("solved.onnx").read_bytes()
    done = quick("verify", model, "again.onnx", merged)
    assert done.code == 0, done.err
    assert done.out.startswith("verified  ")
    done = quick("apply", other_weights, merged, "--rebind", "-o", "other.onnx")
    assert done.code == 0, done.err
    assert quick("verify", other_weights, "other.onnx", merged, "--rebind").code == 0


def test_a_file_of_the_plain_plan_is_not_what_a_merging_plan_makes(quick: Command, model: Path, merged: Path) -> None:
    plain = edit(merged, lambda content: [group.pop("merged", None) for group in content["groups"]])
    assert quick("apply", model, plain, "-o", "plain.onnx").code == 0
    done = quick("verify", model, "plain.onnx", merged)
    assert done.code == 101
    assert "differs from the masked original" in done.err


def test_an_edit_of_kept_must_fit_the_merges(quick: Command, model: Path, merged: Path) -> None:
    first = json.loads(merged.read_text())["groups"][0]["merged"][0]

    def keep_merged(content: dict[str, Any]) -> None:
        group = content["groups"][0]
        group["kept"] = sorted([*group["kept"], first["removed"]])

    def drop_exemplar(content: dict[str, Any]) -> None:
        group = content["groups"][0]
        group["kept"] = [atom for atom in group["kept"] if atom != first["exemplar"]]

    for change, message in ((keep_merged, "is merged, but stays"), (drop_exemplar, "which goes")):
        done = quick("apply", model, edit(merged, change))
        assert done.code == 2
        assert message in done.err
        assert "`kept` was edited" in done.err


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"removed": 99, "exemplar": 0, "scale": 1.0}, "removed"),
        ({"removed": 1, "exemplar": 0}, "scale"),
        ({"removed": 1, "exemplar": 0, "scale": "1"}, "expected a number"),
        ({"removed": 1, "exemplar": 0, "scale": 1.0, "why": ""}, "unknown key 'why'"),
    ],
)
def test_malformed_merges_are_refused(
    quick: Command, model: Path, merged: Path, entry: dict[str, object], message: str
) -> None:
    done = quick("apply", model, edit(merged, lambda content: content["groups"][0].update(merged=[entry])))
    assert done.code == 2
    assert message in done.err
