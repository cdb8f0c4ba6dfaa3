# SPDX-License-Identifier: Apache-2.0
"""What became of the accuracy is said after every pruning: as measured, or with the command that measures it."""

from __future__ import annotations

import json
import re
import shlex
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


def write_samples(path: Path, count: int = 96, *, labels: bool = False) -> Path:
    rng = np.random.default_rng(0)
    arrays = {"image": rng.standard_normal((count, 3, 12, 12)).astype(np.float32)}
    if labels:
        arrays["labels"] = rng.integers(0, 5, count)
    np.savez(path, **arrays)
    return path


def rows(shown: str) -> dict[str, str]:
    """Return the lines of a summary by their labels."""
    lines = (re.split(r"\s+", line, maxsplit=1) for line in shown.splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2}


def test_labels_give_the_accuracy_before_and_after(quick: Command, model: Path, tmp_path: Path) -> None:
    data = write_samples(tmp_path / "test.npz", labels=True).name
    done = quick("solve", model, "--flops", "0.5", "--data", data, "--quick")
    assert done.code == 0, done.err
    before, after = (
        json.loads(quick("eval", each, "--data", data, "--json").out)["top1"]
        for each in (model, model.with_name("net.pruned.onnx"))
    )
    assert rows(done.out)["accuracy"] == (
        f"{100 * before:.2f} % -> {100 * after:.2f} % of the classes are right, on 96 samples of {data}"
    )
    (step,) = read_plan(model.with_name("net.plan.json")).steps
    assert (step.name, step.measure, step.before, step.after) == ("eval", "accuracy", before, after)
    assert step.facts == {"data": data, "samples": 96, "held_out": False, "device": "cpu"}
    assert rows(quick("inspect", model.with_name("net.plan.json")).out)["accuracy"] == rows(done.out)["accuracy"]


@pytest.mark.parametrize(("labels", "word"), [(True, "right"), (False, "those of the original")])
def test_samples_that_are_held_out_judge(quick: Command, model: Path, tmp_path: Path, labels: bool, word: str) -> None:
    data = write_samples(tmp_path / "some.npz", labels=labels)
    done = quick("solve", model, "--flops", "0.5", "--calib", data, "--json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert shown["accuracy"]["measure"] == ("accuracy" if labels else "agreement")
    assert shown["accuracy"]["held_out"] is True and shown["accuracy"]["samples"] == 12
    assert shown["next"] is None and shown["recovered"] is True
    assert word in rows(quick("inspect", model.with_name("net.plan.json")).out)[shown["accuracy"]["measure"]]


def test_what_nothing_uses_judges_too(quick: Command, model: Path, tmp_path: Path) -> None:
    data = write_samples(tmp_path / "many.npz", 1100)
    done = quick(
        "solve", model, "--flops", "0.5", "--calib", data, "--solver", "uniform", "--recover", "bias", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["accuracy"]["samples"] == 128 + 76


def test_labels_that_are_no_classes_count_only_where_they_are_asked_for(
    quick: Command, model: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((32, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "boxes.npz", image=images, labels=rng.standard_normal((32, 4)))
    done = quick("solve", model, "--flops", "0.5", "--calib", "boxes.npz")
    assert done.code == 0, done.err
    assert "agreement" in rows(done.out)
    done = quick("solve", model, "--flops", "0.5", "--data", "boxes.npz", "--force")
    assert done.code == 2
    assert "labels of shape (32, 4)" in done.err


def test_a_network_that_gives_no_classes_is_held_against_the_original(quick: Command, tmp_path: Path) -> None:
    proto = tiny(
        "(float[n,3,8,8] image) => (float[n,3,8,8] y) { a = Conv <pads = [1,1,1,1]> (image, w) b = Relu (a) "
        "y = Conv <pads = [1,1,1,1]> (b, v) }",
        {"w": (16, 3, 3, 3), "v": (3, 16, 3, 3)},
    )
    onnx.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "some.npz", image=np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32))
    done = quick("solve", "net.onnx", "--flops", "0.5", "--calib", "some.npz")
    assert done.code == 0, done.err
    assert "% of their variance away from the original's, on 4 held-out samples of some.npz" in done.out


def pasted(quick: Command, done: Outcome) -> Outcome:
    """Run what a command says to do next."""
    line = rows(done.out)["next"]
    program, *arguments = shlex.split(line)
    assert program == "graphprune"
    return quick(*arguments)


def test_where_nothing_was_measured_the_next_command_is_ready(quick: Command, model: Path, tmp_path: Path) -> None:
    named = tmp_path / "my own net's copy.onnx"
    model.rename(named)
    bare = quick("solve", named, "--flops", "0.5", "--quick")
    assert bare.code == 0, bare.err
    assert "unmeasured" in rows(bare.out)["accuracy"]
    assert rows(bare.out)["recover"].startswith("not done: the weights that stay are as they were")
    assert pasted(quick, bare).code == 0
    recovered = quick("solve", named, "--flops", "0.5", "--force")
    assert recovered.code == 0, recovered.err
    assert "made ones do not" in rows(recovered.out)["accuracy"]
    measured = pasted(quick, recovered)
    assert measured.code == 0, measured.err
    assert "which is no accuracy" in measured.err


def test_samples_that_lie_beside_the_model_are_named(quick: Command, model: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "net.samples.npz")  # what `synthesize` writes
    np.savez(tmp_path / "net_other.npz", image=np.zeros((3, 1, 2, 2), np.float32))  # of another network
    write_samples(tmp_path / "net_test.npz", labels=True)
    done = quick("solve", model, "--flops", "0.5")
    assert done.code == 0, done.err
    assert rows(done.out)["next"].endswith("net_test.npz")
    assert "top-1" in pasted(quick, done).out


def test_the_next_command_takes_the_samples_that_were_named(quick: Command, model: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "own.npz")
    done = quick("solve", model, "--flops", "0.5", "--quick", "--calib", "own.npz")
    assert done.code == 0, done.err
    assert rows(done.out)["next"].endswith("--calib own.npz")
    assert "synthetic" not in done.out
    assert pasted(quick, done).code == 0


def test_an_applied_plan_says_the_same(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--flops", "0.5", "--quick", "--dry-run").code == 0
    assert quick("solve", model, "--flops", "0.5", "--quick").code == 0
    done = quick("apply", model, "net.plan.json", "-o", "again.onnx")
    assert done.code == 0, done.err
    assert "--plan net.plan.json" in rows(done.out)["next"]
    assert pasted(quick, done).code == 0


def test_nothing_is_asked_for_where_nothing_is_lost(quick: Command, model: Path) -> None:
    for arguments in (("--flops", "1"), ("--lossless",)):
        done = quick("solve", model, *arguments, "--force")
        assert done.code == 0, done.err
        assert rows(done.out)["accuracy"] == "as before: the outputs are those of the original"
        assert "next" not in rows(done.out)


def test_how_far_masking_moves_the_outputs_is_for_those_who_ask(quick: Command, model: Path) -> None:
    for arguments, said in (((), False), (("-v",), True)):
        done = quick("solve", model, "--flops", "0.5", "--quick", "--force", *arguments)
        assert ("masking moves the outputs" in done.out) is said
        shown = quick("verify", model, "net.pruned.onnx", "net.plan.json", *arguments)
        assert ("masking moves the outputs" in shown.out) is said


@pytest.mark.parametrize("options", [(), ("--quick",)])
def test_a_model_that_nothing_can_be_fed_to_is_pruned_all_the_same(
    quick: Command, tmp_path: Path, options: tuple[str, ...]
) -> None:
    shape = onnx.helper.make_tensor_value_info
    random = np.random.default_rng(0)
    weights = [
        onnx.helper.make_tensor(name, onnx.TensorProto.BFLOAT16, size, random.standard_normal(size).ravel())
        for name, size in (("first", (8, 16)), ("last", (16, 4)))
    ]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "first"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("MatMul", ["r", "last"], ["y"]),
    ]
    ends = [shape(name, onnx.TensorProto.BFLOAT16, size) for name, size in (("x", (2, 8)), ("y", (2, 4)))]
    graph = onnx.helper.make_graph(nodes, "halves", ends[:1], ends[1:], weights)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "halves.onnx")
    done = quick("solve", "halves.onnx", "--flops", "0.5", *options)
    assert done.code == 0, done.err
    assert (tmp_path / "halves.pruned.onnx").exists()
    assert "unmeasured" in done.out
