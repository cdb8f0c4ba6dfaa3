# SPDX-License-Identifier: Apache-2.0
"""`graphprune compare` and `graphprune sweep`, end to end."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from tiny_models import model as tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def test_compare_prints_a_table_and_writes_nothing(graphprune: Command, model: Path) -> None:
    done = graphprune(
        *("compare", model, "--flops", "0.5", "--solver", "bisection,uniform", "--criterion", "l1, random"),
        *("--bench", "--quick"),
    )
    assert done.code == 0, done.err
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]
    for word in ("bisection", "uniform", "l1", "random", "kept saliency", "gap", "latency", "seconds", "flops 0.5"):
        assert word in done.out


def test_compare_as_json(quick: Command, model: Path) -> None:
    done = quick(
        "compare",
        model,
        "--flops",
        "0.5",
        "--params",
        "0.6",
        "--solver",
        "uniform",
        "--max-prune",
        "0.7",
        "--json",
        "--quick",
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
        (["compare", "net.onnx", "--flops", "0.0001", "--quick"], 1, "cannot reach"),
        (["sweep", "net.onnx", "--flops", "0.5", "--params", "0.5"], 2, "budgets are given for flops and params"),
        (["sweep", "net.onnx", "--flops", "0.5,2"], 2, "--flops cannot be '2'"),
        (["sweep", "net.onnx", "-o", "net.onnx"], 2, "is the input"),
        (["sweep", "net.onnx", "-o", "t.svg"], 2, "let its name end in .csv"),
        (["sweep", "net.onnx", "-o", "t.xlsx"], 2, "the table cannot be written as 't.xlsx'"),
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
    arguments = ("sweep", model, "--solver", "bisection,uniform", "--criterion", "l1", "--quick")
    done = graphprune(*arguments, "--flops", "0.7,0.4", "-j", "2")
    assert done.code == 0, done.err
    table, picture = model.with_name("net.sweep.csv"), model.with_name("net.sweep.svg")
    assert sorted(path.name for path in model.parent.iterdir()) == sorted(["net.onnx", table.name, picture.name])
    assert len(table.read_text().splitlines()) == 5 and picture.read_bytes().startswith(b"<?xml")
    assert done.out.count("bisection") == 2
    assert f"table      {table}" in done.out and f"chart      {picture}" in done.out
    assert "original" in picture.read_text()

    done = quick(*arguments, "--flops", "0.7,0.5,0.4", "--json", "-v")
    assert done.code == 0, done.err
    assert sum("flops 0." in line for line in done.err.splitlines()) == 2  # what is new
    report = json.loads(done.out)
    assert [trial["budget"] for trial in report["trials"]] == ["flops 0.7", "flops 0.5", "flops 0.4"] * 2
    assert any(trial["front"] for trial in report["trials"])
    done = quick(*arguments, "--flops", "0.7", "--round-to", "1")
    assert done.code == 2 and "--force" in done.err
    assert quick(*arguments, "--flops", "0.7", "--round-to", "1", "--force").code == 0


def test_a_sweep_of_which_nothing_can_be_met_says_so(quick: Command, model: Path) -> None:
    done = quick("sweep", model, "--flops", "0.0001,0.00001", "--solver", "uniform", "--quick")
    assert done.code == 1
    assert "none of the budgets can be met" in done.err
    assert model.with_name("net.sweep.csv").exists()


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_what_has_no_budget_cannot_be_compared(quick: Command, model: Path, command: str) -> None:
    done = quick(command, model, "--lossless")
    assert done.code == 2
    assert "No such option: --lossless" in done.err


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((64, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    np.savez(tmp_path / "labelled.npz", image=images, labels=rng.integers(0, 5, 64))
    return "data.npz"


def columns(shown: str) -> list[str]:
    (head,) = [line for line in shown.splitlines() if line.lstrip().startswith("solver ")]
    return re.split(r"  +", head.strip())


@pytest.mark.parametrize(
    ("given", "column", "measured"),
    [
        (("--calib", "data.npz"), "agreement", "on 8 held-out samples of data.npz"),
        (("--calib", "labelled.npz"), "accuracy", "on 8 held-out samples of labelled.npz"),
        (("--calib", "data.npz", "--data", "labelled.npz"), "accuracy", "on 64 samples of labelled.npz"),
        ((), "agreement", "on 128 samples that are made: this ranks, and is no accuracy"),
        (("--calib", "synthetic:64"), "agreement", "on 128 samples that are made"),
    ],
)
def test_results_are_ranked_by_what_is_left_once_they_are_recovered(
    quick: Command, model: Path, data: str, given: tuple[str, ...], column: str, measured: str
) -> None:
    arguments = ("compare", model, "--flops", "0.5", "--solver", "uniform,bisection,greedy", *given)
    done = quick(*arguments)
    assert done.code == 0, done.err
    assert columns(done.out)[2] == column
    assert measured in done.out
    assert "kept saliency and gap compare results of one criterion" in done.out
    shares = [float(line.split()[2]) for line in done.out.splitlines() if " bn-scale " in line]
    assert shares == sorted(shares, reverse=True) and len(shares) == 3
    found = json.loads(quick(*arguments, "--json").out)["trials"]
    assert [trial["solver"] for trial in found] == ["uniform", "bisection", "greedy"]


def test_what_nobody_names_is_what_solve_would_take(quick: Command, model: Path) -> None:
    done = quick("compare", model, "--flops", "0.5", "--json")
    assert done.code == 0, done.err
    solvers = [trial["solver"] for trial in json.loads(done.out)["trials"]]
    assert "stage-wise" in solvers and "sensitivity" not in solvers
    bare = quick("compare", model, "--flops", "0.5", "--json", "--quick")
    trials = json.loads(bare.out)["trials"]
    assert "stage-wise" not in [trial["solver"] for trial in trials]
    assert all(trial["agreement"] is None and trial["judged"] == "" for trial in trials)


def test_why_nothing_is_measured_is_said(quick: Command, tmp_path: Path) -> None:
    proto = tiny(
        "(float[n, 6] state) => (float[n, 3] y) { a = MatMul (state, w) b = Relu (a) y = MatMul (b, v) }",
        {"w": (6, 16), "v": (16, 3)},
    )
    onnx.save(proto, tmp_path / "net.onnx")
    done = quick("compare", "net.onnx", "--flops", "0.5", "--solver", "uniform")
    assert done.code == 0, done.err
    assert "nothing: no samples can be made for input 'state'" in done.out


def test_a_sweep_measures_as_solve_does(quick: Command, model: Path, data: str) -> None:
    arguments = ("sweep", model, "--flops", "0.7,0.5", "--solver", "uniform", "--calib", data)
    done = quick(*arguments)
    assert done.code == 0, done.err
    rows = model.with_name("net.sweep.csv").read_text()
    assert rows.count("8 held-out samples of data.npz") == 2
    again = json.loads(quick(*arguments, "--json").out)["trials"]  # read from the table
    assert all(trial["judged"] and 0 <= trial["agreement"] <= 1 for trial in again)
