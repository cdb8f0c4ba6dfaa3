# SPDX-License-Identifier: Apache-2.0
"""`graphprune compare` and `graphprune sweep`, end to end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def test_compare_prints_a_table_and_writes_nothing(graphprune: Command, model: Path) -> None:
    done = graphprune(
        *("compare", model, "--flops", "0.5", "--solver", "bisection,uniform", "--criterion", "l1, random"), "--bench"
    )
    assert done.code == 0, done.err
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]
    for word in ("bisection", "uniform", "l1", "random", "kept saliency", "gap", "latency", "seconds", "flops 0.5"):
        assert word in done.out


def test_compare_as_json(quick: Command, model: Path) -> None:
    done = quick(
        "compare", model, "--flops", "0.5", "--params", "0.6", "--solver", "uniform", "--max-prune", "0.7", "--json"
    )
    assert done.code == 0, done.err
    (trial,) = json.loads(done.out)["trials"]
    assert trial["budget"] == "flops 0.5, params 0.6"
    assert trial["flops"]["after"] <= trial["flops"]["before"] / 2
    assert trial["params"]["after"] <= 0.6 * trial["params"]["before"]
    assert all(width >= 0.3 * size for width, size in zip(trial["widths"], trial["sizes"], strict=True))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["compare", "net.onnx"], 2, "no budget is given"),
        (["compare", "net.onnx", "--flops", "0.5", "--solver", "none"], 2, "unknown solver 'none'"),
        (["compare", "net.onnx", "--flops", "0.5", "--solver", "uniform,"], 2, "unknown solver ''"),
        (["compare", "net.onnx", "--flops", "0.0001"], 1, "cannot reach"),
        (["sweep", "net.onnx", "--flops", "0.5", "--params", "0.5"], 2, "budgets are given for flops and params"),
        (["sweep", "net.onnx", "--flops", "0.5,2"], 2, "--flops cannot be '2'"),
        (["sweep", "net.onnx", "-o", "net.onnx"], 2, "is the input"),
        (["sweep", "net.onnx", "-o", "t.svg"], 2, "would both go to"),
        (["sweep", "net.onnx", "-o", "none/t.csv"], 2, "folder does not exist"),
        (["sweep", "none.onnx"], 2, "none.onnx"),
    ],
)
def test_what_cannot_be_done_is_refused(
    quick: Command, model: Path, arguments: list[str], code: int, message: str
) -> None:
    done = quick(*arguments)
    assert done.code == code, done.err
    assert done.out == "" and message in done.err and len(done.err.splitlines()) <= 2
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]


def test_sweep_writes_a_table_and_a_chart_and_goes_on(graphprune: Command, quick: Command, model: Path) -> None:
    arguments = ("sweep", model, "--solver", "bisection,uniform", "--criterion", "l1", "-v")
    done = graphprune(*arguments, "--flops", "0.7,0.4", "-j", "2")
    assert done.code == 0, done.err
    table, picture = model.with_name("net.sweep.csv"), model.with_name("net.sweep.svg")
    assert sorted(path.name for path in model.parent.iterdir()) == sorted(["net.onnx", table.name, picture.name])
    assert len(table.read_text().splitlines()) == 5 and picture.read_bytes().startswith(b"<?xml")
    assert done.out.count("bisection") == 2 and len(done.err.splitlines()) == 4

    done = quick(*arguments, "--flops", "0.7,0.5,0.4", "--json")
    assert done.code == 0, done.err
    assert len(done.err.splitlines()) == 2  # what is new
    report = json.loads(done.out)
    assert [trial["budget"] for trial in report["trials"]] == ["flops 0.7", "flops 0.5", "flops 0.4"] * 2
    assert any(trial["front"] for trial in report["trials"])
    done = quick(*arguments, "--flops", "0.7", "--round-to", "1")
    assert done.code == 2 and "--force" in done.err
    assert quick(*arguments, "--flops", "0.7", "--round-to", "1", "--force").code == 0


def test_a_sweep_of_which_nothing_can_be_met_says_so(quick: Command, model: Path) -> None:
    done = quick("sweep", model, "--flops", "0.0001,0.00001", "--solver", "uniform")
    assert done.code == 1
    assert "none of the budgets can be met" in done.err
    assert model.with_name("net.sweep.csv").exists()


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_what_has_no_budget_cannot_be_compared(quick: Command, model: Path, command: str) -> None:
    done = quick(command, model, "--lossless")
    assert done.code == 2
    assert "No such option: --lossless" in done.err
