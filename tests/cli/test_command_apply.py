# SPDX-License-Identifier: Apache-2.0
"""`graphprune apply` and `graphprune verify`: stored, edited, damaged and foreign plans."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from graphprune.errors import OutputError
from graphprune.plan.file import read_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


@pytest.fixture
def plan(quick: Command, model: Path) -> Path:
    done = quick("solve", model, "--quick", "--flops", "0.5", "-o", "solved.onnx", "--plan", "net.plan.json")
    assert done.code == 0, done.err
    return model.with_name("net.plan.json")


def edit(plan: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(plan.read_text())
    change(content)
    edited = plan.with_name("edited.json")
    edited.write_text(json.dumps(content))
    return edited


def test_a_stored_plan_gives_the_same_file(graphprune: Command, model: Path, plan: Path) -> None:
    done = graphprune("apply", model, plan)
    assert done.code == 0, done.err
    assert model.with_name("net.pruned.onnx").read_bytes() == model.with_name("solved.onnx").read_bytes()
    done = graphprune("verify", model, "net.pruned.onnx", plan)
    assert done.code == 0, done.err
    assert done.out.startswith("verified  ")


def test_an_edited_plan_is_followed(graphprune: Command, model: Path, plan: Path) -> None:
    edited = edit(plan, lambda content: content["groups"][0].update(kept=[1, 3, 5]))
    done = graphprune("apply", model, edited, "--dry-run")
    assert (done.out + done.err).count("kept was edited") == 1
    done = graphprune("apply", model, edited, "--plan", "updated.json", "--json")
    assert done.code == 0, done.err
    assert "note: kept was edited in 1 group (g000)" in done.err
    updated = read_plan(model.with_name("updated.json"))
    assert updated.groups[0].kept == (1, 3, 5)
    report = json.loads(done.out)
    assert report["flops"]["after"] == updated.budget.after
    shapes = {
        tensor.name: list(tensor.dims) for tensor in onnx.load(model.with_name("net.pruned.onnx")).graph.initializer
    }
    assert shapes["stem"] == [3, 3, 3, 3]
    for name in ("updated.json", edited):
        assert graphprune("verify", model, "net.pruned.onnx", name).code == 0


def test_an_edit_over_the_budget_is_followed(quick: Command, model: Path, plan: Path) -> None:
    edited = edit(plan, lambda content: [group.update(kept=[*range(group["size"] - 1)]) for group in content["groups"]])
    done = quick("apply", model, edited, "--plan", "updated.json")
    assert done.code == 0, done.err
    assert done.err.count("more than its budget") == 1
    budget = read_plan(model.with_name("updated.json")).budget
    assert budget.limit < budget.after < budget.before
    for name in ("updated.json", edited):
        assert quick("verify", model, "net.pruned.onnx", name).code == 0
    assert quick("apply", model, "updated.json", "-o", "again.onnx").code == 0
    assert model.with_name("again.onnx").read_bytes() == model.with_name("net.pruned.onnx").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["budget"].update(after=1), "claims a cost of 1 flops"),
        (lambda content: content["budget"].update(before=1), "says the model costs 1 flops"),
        (lambda content: content["budget"].update(limit=1), "more than its limit of 1"),
        (lambda content: content["layers"][0].update(flops_after=1), "layer 0"),
        (lambda content: content["groups"].pop(), "lacks the group"),
        (lambda content: content["groups"][0]["members"].pop(), "group 'g000'"),
        (lambda content: content["groups"][0]["members"][0].update(removed=[0]), "contradict"),
        (lambda content: content["groups"][0]["members"][0].update(initializer="offset"), "'offset'"),
        (lambda content: content["groups"][0].update(kept=[]), "cannot keep nothing"),
        (lambda content: content["groups"][0].update(kept=[-1, 2]), "index -1"),
        (lambda content: content["model"].update(opset=16), "facts about its model"),
        (lambda content: content.update(extra=1), "unknown key 'extra'"),
    ],
)
def test_a_damaged_plan_is_refused(
    quick: Command, model: Path, plan: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    done = quick("apply", model, edit(plan, change))
    assert done.code == 2, done.err
    assert message in done.err
    assert len(done.err.splitlines()) <= 2
    assert not model.with_name("net.pruned.onnx").exists()


def test_another_checkpoint_needs_rebind(quick: Command, other_weights: Path, plan: Path) -> None:
    done = quick("apply", other_weights, plan)
    assert done.code == 2
    assert "--rebind" in done.err
    done = quick("apply", other_weights, plan, "--rebind", "--plan", "rebound.json")
    assert done.code == 0, done.err
    assert read_plan(plan.with_name("rebound.json")).model.name == "retrained"
    assert quick("verify", other_weights, "retrained.pruned.onnx", "rebound.json").code == 0


def test_another_structure_is_refused_even_with_rebind(quick: Command, model: Path, plan: Path) -> None:
    proto = onnx.load(model)
    proto.graph.node[0].attribute[0].ints[:] = [0, 0, 2, 2]
    onnx.save(proto, plan.with_name("other.onnx"))
    done = quick("apply", "other.onnx", plan, "--rebind")
    assert done.code == 2
    assert "has another structure" in done.err


def test_a_plan_of_a_model_with_other_inputs_is_said_to_be_one(quick: Command, model: Path, plan: Path) -> None:
    proto = onnx.load(model)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 20
    onnx.save(proto, plan.with_name("other.onnx"))
    for arguments in (("apply", "other.onnx", plan), ("verify", "other.onnx", "solved.onnx", plan)):
        done = quick(*arguments)
        assert done.code == 2
        assert "the plan was made for another model ('net')" in done.err
        assert "graphprune solve" in done.err


def test_a_file_of_another_plan_fails_verification(quick: Command, model: Path, plan: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.3", "-o", "third.onnx", "--plan", "third.json").code == 0
    done = quick("verify", model, "third.onnx", plan)
    assert done.code == 101
    assert "differs from the masked original" in done.err
    assert "made from another plan" in done.err


def test_changed_weights_fail_verification(quick: Command, model: Path, plan: Path) -> None:
    proto = onnx.load(model.with_name("solved.onnx"))
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "head")
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1.01, "head"))
    onnx.save(proto, plan.with_name("damaged.onnx"))
    done = quick("verify", model, "damaged.onnx", plan, "--json")
    assert done.code == 101
    assert [*json.loads(done.out)] == ["error"]
    assert "'scores'" in done.err


def test_changes_that_no_run_shows_fail_verification(quick: Command, model: Path, plan: Path) -> None:
    proto = onnx.load(model.with_name("solved.onnx"))
    proto.metadata_props.add(key="licence", value="none")
    onnx.save(proto, plan.with_name("relabelled.onnx"))
    done = quick("verify", model, "relabelled.onnx", plan)
    assert done.code == 101
    assert "metadata_props" in done.err
    assert "hint: the file is not what the plan makes of the original" in done.err
    assert "fault" not in done.err


def test_a_model_that_cannot_be_written_leaves_plans_alone(
    quick: Command, model: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("no space left on device")

    before = plan.read_bytes()
    monkeypatch.setattr("graphprune.api.save", full)
    assert quick("solve", model, "--quick", "--flops", "0.3", "--plan", "new.json").code == 2
    assert quick("solve", model, "--quick", "--flops", "0.3", "--plan", plan, "--force").code == 2
    assert quick("apply", model, plan, "--plan", "updated.json").code == 2
    assert plan.read_bytes() == before
    assert sorted(path.name for path in plan.parent.iterdir()) == ["net.onnx", "net.plan.json", "solved.onnx"]


def test_output_over_an_input_is_refused(quick: Command, model: Path, plan: Path) -> None:
    for target in (model, plan):
        before = target.read_bytes()
        done = quick("apply", model, plan, "-o", target, "--force")
        assert done.code == 2
        assert target.read_bytes() == before


def test_a_plan_is_for_the_float_file_that_it_was_made_of(quick: Command, model: Path, plan: Path) -> None:
    values = np.random.default_rng(3).standard_normal((24, 3, 12, 12)).astype(np.float32)
    np.savez(model.with_name("images.npz"), image=values)
    for name in ("net.onnx", "solved.onnx"):
        done = quick("quantize", name, "--fp16", "--calib", "images.npz", "--limit", "0.5")
        assert done.code == 0, done.err
    for name, said in (
        ("net.fp16.onnx", "in lower precision (fp16)"),
        ("solved.fp16.onnx", "pruned already and in lower precision (fp16)"),
        ("solved.onnx", "a file that was pruned already"),
    ):
        done = quick("apply", name, plan)
        assert done.code == 2
        assert said in done.err and "apply the plan to 'net'" in done.err
        assert ("quantize" in done.err) == ("fp16" in name)
