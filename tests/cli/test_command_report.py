# SPDX-License-Identifier: Apache-2.0
"""`graphprune report` through the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


def test_a_plan_two_plans_and_a_table(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    done = quick("report", "net.plan.json", "--model", model, "--pruned", "net.pruned.onnx")
    assert done.code == 0 and done.out == "report  net.report.html\n", done.err
    assert "Group graph" in model.with_name("net.report.html").read_text(encoding="utf-8")
    both = quick("report", "net.plan.json", "net.plan.json", "-o", "both.html", "--json")
    assert both.code == 0 and json.loads(both.out)["output"] == "both.html"
    assert quick("sweep", model, "--flops", "0.7,0.5", "--solver", "uniform").code == 0
    done = quick("report", "net.sweep.csv", "-o", "sweep.html")
    assert done.code == 0, done.err
    assert "Pareto" in model.with_name("sweep.html").read_text(encoding="utf-8")


def test_what_cannot_be_shown_is_refused(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    plans = ["net.plan.json"] * 3
    for arguments, said in (
        (("nothing.json",), "does not exist"),
        (plans, "cannot show 3 plans"),
        (("net.plan.json", "-o", "net.plan.json"), "net.plan.json"),
        (("net.plan.json", "--model", "net.pruned.onnx"), "another model"),
    ):
        done = quick("report", *arguments)
        assert done.code == 2 and said in done.err, done.err


def test_solve_writes_its_report_with_the_samples_that_it_made(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--flops", "0.5", "--solver", "bisection", "--report", "page.html")
    assert done.code == 0, done.err
    assert "report     page.html" in done.out
    page = model.with_name("page.html").read_text(encoding="utf-8")
    assert "Made samples" in page and "data:image/png;base64,iVBOR" in page and "Group graph" in page
    done = quick("solve", model, "--flops", "0.5", "--quick", "--report", "bare.html", "--force", "--json")
    assert json.loads(done.out)["report"] == "bare.html"
    assert "Made samples" not in model.with_name("bare.html").read_text(encoding="utf-8")


def test_a_report_that_could_not_be_written_is_refused_at_once(quick: Command, model: Path) -> None:
    for arguments, said in (
        (("--report", "page.html", "--dry-run"), "--dry-run writes none"),
        (("--report", "net.onnx"), "net.onnx"),
        (("--report", "gone/page.html"), "gone"),
    ):
        done = quick("solve", model, "--flops", "0.5", "--quick", *arguments)
        assert done.code == 2 and said in done.err, done.err
        assert not model.with_name("net.pruned.onnx").exists()
