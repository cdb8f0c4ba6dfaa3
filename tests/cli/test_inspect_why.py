# SPDX-License-Identifier: Apache-2.0
"""`graphprune inspect --why` and `--graph`, and how `inspect` ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def test_two_lines_say_what_can_go_and_what_stays(quick: Command, model: Path) -> None:
    done = quick("inspect", model, "--why", "head")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "can go  axis 0 of head (16 slices, group g000)",
        "stays   axis 1 of head: reaches the graph output 'scores'; -v shows the way",
    ]


@pytest.mark.parametrize("name", ["head", "offset", "a", "image", "scores", "g000", "g001", "stem", "l"])
def test_every_name_is_answered_in_two_lines(quick: Command, model: Path, name: str) -> None:
    first, second = quick("inspect", model, "--why", name).out.splitlines()
    assert first.startswith("can go  ") and second.startswith("stays   ")


def test_a_group_goes_by_its_id(quick: Command, model: Path) -> None:
    done = quick("inspect", model, "--why", "g001")
    assert done.out.startswith("can go  32 channels made by d, each in 6 places at once\nstays   at least one of them;")
    full = quick("inspect", model, "--why", "g001", "-v").out
    for word in ("first", "second", "scale1", "per channel", "hangs on"):
        assert word in full
    report = json.loads(quick("inspect", model, "--why", "g001", "--json").out)
    assert (report["kind"], [group["id"] for group in report["groups"]]) == ("group", ["g001"])


def test_why_a_channel_may_go(quick: Command, model: Path) -> None:
    done = quick("inspect", model, "--why", "stem", "-v")
    assert done.code == 0, done.err
    for word in ("prunable: group g000 (16 slices)", "graph input 'image'", "second", "scale0", "hangs on", "through"):
        assert word in done.out
    assert "frozen by" not in done.out
    assert "convolution kernel" not in done.out


def test_why_a_channel_stays(quick: Command, model: Path) -> None:
    done = quick("inspect", model, "--why", "head", "-v")
    assert done.code == 0, done.err
    assert "frozen (5 slices), graph output: reaches the graph output 'scores'" in done.out
    assert "head axis 1 -> Gemm scores -> scores axis 1" in done.out


def test_why_as_json(quick: Command, model: Path) -> None:
    report = json.loads(quick("inspect", model, "--why", "head", "--json").out)
    assert (report["command"], report["kind"], report["name"]) == ("inspect", "tensor", "head")
    assert report["axes"][0]["groups"] == {"g000": 16}
    (cause,) = report["axes"][1]["causes"]
    assert cause["kind"] == "graph output"
    assert [hop["name"] for hop in cause["chain"]][:2] == ["head", "scores"]
    assert {entry["tensor"] for entry in report["groups"][0]["companions"]} >= {"stem", "second", "first", "head"}


def test_an_unknown_name_is_a_wrong_use(quick: Command, model: Path) -> None:
    done = quick("inspect", model, "--why", "hed")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == ["error: nothing in 'net' is called 'hed'", "hint: similar names: 'head'"]


def test_large_groups_and_long_chains_stand_in_full_where_all_is_asked_for(quick: Command, tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Conv", ["image", "stem"], ["r0"])]
    nodes += [onnx.helper.make_node("Relu", [f"r{at}"], [f"r{at + 1}"]) for at in range(20)]
    nodes += [onnx.helper.make_node("Conv", ["r20", f"w{at}"], [f"y{at}"]) for at in range(50)]
    shapes = {"stem": (8, 3, 1, 1)} | {f"w{at}": (2, 8, 1, 1) for at in range(50)}
    tensors = [onnx.helper.make_tensor(name, 1, dims, [0.1] * (dims[0] * dims[1])) for name, dims in shapes.items()]
    values = [onnx.helper.make_tensor_value_info(f"y{at}", 1, [1, 2, 4, 4]) for at in range(50)]
    image = onnx.helper.make_tensor_value_info("image", 1, [1, 3, 4, 4])
    graph = onnx.helper.make_graph(nodes, "long", [image], values, tensors)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "long.onnx")
    short = quick("inspect", "long.onnx", "--why", "stem").out
    assert len(short.splitlines()) == 2
    full = quick("inspect", "long.onnx", "--why", "stem", "-v").out
    assert "more" not in full
    assert "w49" in full


def test_plans_have_no_why(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    done = quick("inspect", "net.plan.json", "--why", "stem")
    assert done.code == 2
    assert "about a model" in done.err


@pytest.mark.parametrize("ending", ["svg", "html", "dot"])
def test_a_drawing_is_written_once(quick: Command, model: Path, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"groups.{ending}"
    done = quick("inspect", model, "--graph", target)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"graph  {target}"
    first = target.read_bytes()
    assert b"g001" in first
    again = quick("inspect", model, "--graph", target)
    assert again.code == 2
    assert "exists" in again.err
    assert target.read_bytes() == first
    report = json.loads(quick("inspect", model, "--graph", target, "--force", "--json").out)
    assert report["graph"] == str(target)
    assert target.read_bytes() == first


def test_a_drawing_never_replaces_the_model_and_needs_a_known_ending(quick: Command, model: Path) -> None:
    before = model.read_bytes()
    assert quick("inspect", model, "--graph", model, "--force").code == 2
    same = model.rename(model.with_suffix(".svg"))
    done = quick("inspect", same, "--graph", same, "--force")
    assert done.code == 2
    assert same.read_bytes() == before
    done = quick("inspect", same, "--graph", "groups.png")
    assert done.code == 2
    assert "groups.png" in done.err
    assert ".svg, .html, .dot" in done.err


def test_inspect_ends_with_what_can_be_pruned_and_what_holds_the_rest(quick: Command, model: Path) -> None:
    proto = onnx.load(model)
    proto.graph.node.extend(
        [
            onnx.helper.make_node("Conv", ["image", "kept"], ["raw"], name="branch"),
            onnx.helper.make_node("Softmax", ["raw"], ["soft"], axis=1),
        ]
    )
    proto.graph.initializer.append(onnx.helper.make_tensor("kept", 1, (7, 3, 3, 3), [0.1] * 189))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("soft", 1, ["n", 7, 10, 10]))
    onnx.save(proto, model)
    done = quick("inspect", model)
    assert done.code == 0, done.err
    ending = done.out[done.out.index("\nprunable") :]
    assert "of the FLOPs are in layers that can lose channels" in ending
    assert "Conv branch" in ending
    report = json.loads(quick("inspect", model, "--json").out)
    assert [held["node"] for held in report["rest"]] == ["branch"]
    assert report["prunable"] == pytest.approx(1 - report["rest"][0]["flops"] / report["flops"])
    largest = {entry["kind"]: [held["node"] for held in entry["largest"]] for entry in report["frozen"]}
    assert largest["Softmax"] == ["branch"]
    assert set(largest["graph input"]) == {"a", "branch"}
