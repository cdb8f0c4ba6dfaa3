# SPDX-License-Identifier: Apache-2.0
"""`--inherit merge`, `--lossless` and `--allow-empty` from the command line, and their plans afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import numpy_helper

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
    done = quick(
        "solve",
        model,
        "--quick",
        "--flops",
        "0.5",
        "--inherit",
        "merge",
        "-o",
        "solved.onnx",
        "--plan",
        "net.plan.json",
    )
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


@pytest.fixture
def damaged(model: Path) -> Path:
    """Write a network with a dead channel, a constant one and two equal ones in its inner layer."""
    proto = onnx.load(model)
    arrays = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in proto.graph.initializer}
    arrays["scale1"][[2, 5]] = 0.0
    arrays["bias1"][[2, 5]] = [-0.5, 0.0]
    for name in ("first", "scale1", "bias1", "mean1", "var1"):
        arrays[name][7] = arrays[name][6]
    arrays["scale2"][3] = 0.0
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    path = model.with_name("damaged.onnx")
    onnx.save(proto, path)
    return path


def test_lossless_removes_what_changes_nothing_and_says_so(quick: Command, model: Path, damaged: Path) -> None:
    done = quick("solve", damaged, "--lossless")
    assert done.code == 0, done.err
    assert "3 channels change nothing: 2 are zero or never read, 0 constant (now in biases), 1 equal" in done.out
    assert "comparisons of outputs: equal to the original's to" in done.out
    plan = damaged.with_name("damaged.plan.json")
    stored = read_plan(plan)
    assert stored.lossless
    assert len(stored.groups[1].kept) == 29
    assert quick("apply", damaged, plan, "-o", "again.onnx").code == 0
    assert damaged.with_name("again.onnx").read_bytes() == damaged.with_name("damaged.pruned.onnx").read_bytes()
    done = quick("verify", damaged, "damaged.pruned.onnx", plan, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["lossless"] is True
    done = quick("apply", model, plan, "--rebind", "-o", "other.onnx")
    assert done.code == 2
    assert "claims to be lossless" in done.err
    assert not model.with_name("other.onnx").exists()


def test_lossless_copies_a_network_of_which_everything_matters(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--lossless", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["notes"] == [
        "no channel can go without changing what the model computes; the result is the original"
    ]
    assert model.with_name("net.pruned.onnx").read_bytes() == model.read_bytes()


def test_lossless_takes_no_budget(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--lossless", "--flops", "0.5")
    assert done.code == 2
    assert "a lossless plan has no budget" in done.err
    assert quick("solve", model, "--quick").code == 2


def test_a_branch_may_go_as_a_whole(quick: Command, model: Path) -> None:
    budget = ("--flops", "0.004", "--round-to", "1", "--json")
    done = quick("solve", model, *budget, "--allow-empty", "--quick")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert "1 group and 2 layers with FLOPs are gone as a whole: d" in report["notes"]
    plan = model.with_name("net.plan.json")
    stored = read_plan(plan)
    assert [bool(group.kept) for group in stored.groups] == [True, False]
    assert stored.solver.options["emptied"] == ["g001"]
    pruned = onnx.load(model.with_name("net.pruned.onnx"))
    assert [node.op_type for node in pruned.graph.node].count("Conv") == 1
    assert report["flops"]["after"] == stored.budget.after <= stored.budget.limit
    assert report["params"]["after"] == sum(onnx.numpy_helper.to_array(t).size for t in pruned.graph.initializer)
    assert quick("verify", model, "net.pruned.onnx", plan).code == 0
    assert quick("apply", model, plan, "-o", "again.onnx").code == 0
    assert model.with_name("again.onnx").read_bytes() == model.with_name("net.pruned.onnx").read_bytes()


def test_a_group_that_cannot_be_emptied_is_refused(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    plan = model.with_name("net.plan.json")
    done = quick("apply", model, edit(plan, lambda content: content["groups"][0].update(kept=[])), "-o", "x.onnx")
    assert done.code == 2
    assert "group 'g000' cannot keep nothing" in done.err
    done = quick("apply", model, edit(plan, lambda content: content["groups"][1].update(kept=[])), "-o", "x.onnx")
    assert done.code == 0, done.err
    assert quick("verify", model, "x.onnx", "edited.json").code == 0
