# SPDX-License-Identifier: Apache-2.0
"""`graphprune inspect` of models and plans, and `graphprune normalize`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import tiny_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def test_a_model_as_tables(graphprune: Command, model: Path) -> None:
    done = graphprune("inspect", model)
    assert done.code == 0, done.err
    for word in ("group", "g000", "g001", "frozen by", "graph output", "BatchNormalization scale", "image 1x3x12x12"):
        assert word in done.out
    assert "scale1" not in done.out
    assert "scale1" in graphprune("inspect", model, "-v").out


def test_a_model_as_json(quick: Command, model: Path) -> None:
    report = json.loads(quick("inspect", model, "--json").out)
    stem, inner = report["groups"]
    assert (stem["size"], inner["size"]) == (16, 32)
    assert {member["initializer"] for member in stem["members"]} >= {"stem", "second", "first", "head", "scale0"}
    assert all(0 < group["flops_share"] < 1 for group in report["groups"])
    assert "graph output" in {entry["kind"] for entry in report["frozen"]}
    assert report["flops"] == 2 * 144 * 9 * (16 * 3 + 32 * 16 + 16 * 32) + 2 * 16 * 5
    assert 0 < report["reachable"] < 0.1


def test_a_plan(graphprune: Command, model: Path) -> None:
    assert graphprune("solve", model, "--quick", "--flops", "0.5").code == 0
    done = graphprune("inspect", "net.plan.json")
    assert done.code == 0, done.err
    for word in ("budget", "bisection", "bn-scale", "█", "g001"):
        assert word in done.out
    report = json.loads(graphprune("inspect", "net.plan.json", "--json").out)
    assert report["budget"]["after"] <= report["budget"]["limit"]
    assert [group["id"] for group in report["groups"]] == ["g000", "g001"]


def test_a_plan_is_drawn(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    done = quick("inspect", "net.plan.json", "--graph", "widths.svg")
    assert done.code == 0 and done.out.endswith("graph  widths.svg\n"), done.err
    assert "output channels" in model.with_name("widths.svg").read_text(encoding="utf-8")
    for wrong, said in (("widths.dot", "its name end in"), ("widths.svg", "exists"), ("net.plan.json", "its name")):
        done = quick("inspect", "net.plan.json", "--graph", wrong)
        assert done.code == 2 and said in done.err
    assert quick("inspect", "net.plan.json", "--why", "g000").code == 2


def test_names_cannot_control_the_terminal(quick: Command, model: Path) -> None:
    proto = onnx.load(model)
    proto.graph.node[0].name = "\x1b[31mred\n\u202e[bold]"
    onnx.save(proto, model)
    for arguments in (("inspect", model), ("solve", model, "--flops", "0.5"), ("inspect", "net.plan.json")):
        done = quick(*arguments)
        assert done.code == 0, done.err
        assert "\\x1b[31mred\\n\\u202e[bold]" in done.out
        assert "\x1b" not in done.out
        assert "\u202e" not in done.out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminals_without_line_drawing_get_something(graphprune: Command, model: Path, encoding: str) -> None:
    done = graphprune("inspect", model, env={"PYTHONIOENCODING": encoding})
    assert done.code == 0, done.err
    assert "g001" in done.out


def test_normalize_folds_what_is_computed(quick: Command, model: Path) -> None:
    proto = onnx.load(model)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "first")
    halves = onnx.numpy_helper.to_array(tensor) / 2
    tensor.CopyFrom(onnx.numpy_helper.from_array(halves, "half"))
    proto.graph.node.insert(0, onnx.helper.make_node("Add", ["half", "half"], ["first"]))
    onnx.save(proto, model)
    done = quick("normalize", model)
    assert done.code == 0, done.err
    result = onnx.load(model.with_name("net.normalized.onnx"))
    onnx.checker.check_model(result, full_check=True)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    assert "half" not in stored
    np.testing.assert_array_equal(stored["first"], halves * 2)
    assert len(result.graph.node) == len(proto.graph.node) - 1
    assert quick("normalize", model).code == 2
    report = json.loads(quick("normalize", model, "--json", "--dry-run").out)
    assert report["nodes"] == {"before": 14, "after": 13}


def test_one_is_not_many(quick: Command, tmp_path: Path) -> None:
    text = "(float[n,3,6,6] x) => (float[n,2,6,6] y) { h = Conv(x, first) m = Relu(h) y = Conv(m, last) }"
    onnx.save(tiny_models.model(text, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)}), tmp_path / "one.onnx")
    for command in (("inspect",), ("solve", "--flops", "0.5", "--dry-run"), ("inspect", "--why", "first")):
        done = quick(command[0], "one.onnx", *command[1:])
        assert done.code == 0, done.err
        assert "(1 group)" in done.out or command[-1] == "first"
        assert not re.search(r"\b1 (groups|layers|tensors|members|slices)\b", done.out)
