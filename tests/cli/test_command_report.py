# SPDX-License-Identifier: Apache-2.0
"""`graphprune report` through the command line."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import onnx
import pytest

from graphprune.report import text

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
        (("net.plan.json", "-o", "net.html", "--log", "net.html"), "the report and the log would both go to"),
        (("net.plan.json", "--model", "net.pruned.onnx"), "a file that was pruned already"),
    ):
        done = quick("report", *arguments)
        assert done.code == 2 and said in done.err, done.err


def test_a_folder_is_its_sweep_or_its_plans(quick: Command, model: Path) -> None:
    folder = model.with_name("results")
    folder.mkdir()
    (folder / "accuracies.csv").write_text("name,accuracy\n", encoding="utf-8")
    done = quick("report", "results")
    assert done.code == 2 and "holds no plan and no table of a sweep" in done.err
    assert quick("solve", model, "--quick", "--flops", "0.5", "--plan", "results/net.plan.json").code == 0
    assert quick("report", "results").code == 0
    assert "Coupled groups" in (folder / "net.report.html").read_text(encoding="utf-8")
    assert (
        quick("sweep", model, "--flops", "0.7,0.5", "--solver", "uniform", "--quick", "-o", "results/a.csv").code == 0
    )
    done = quick("report", "results")
    assert done.code == 0 and done.out == "report  results/a.report.html\n", done.err
    (folder / "b.csv").write_bytes((folder / "a.csv").read_bytes())
    done = quick("report", "results")
    assert done.code == 2 and "holds 'a.csv', 'b.csv'" in done.err and "name the one" in done.err


def test_the_folder_that_one_is_in_is_one(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    done = quick("report", ".")
    assert done.code == 0 and done.out == "report  net.report.html\n", done.err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_in_the_place_of_a_table_is_said_to_be_one(quick: Command, model: Path) -> None:
    os.mkfifo(model.with_name("a.csv"))
    done = quick("report", "a.csv")
    assert done.code == 2 and "is a pipe" in done.err
    done = quick("report", ".")
    assert done.code == 2 and "holds no plan and no table of a sweep" in done.err


def test_what_does_not_go_together_is_refused(quick: Command, model: Path, other_weights: Path) -> None:
    for path in (model, other_weights):
        assert quick("solve", path, "--quick", "--flops", "0.5").code == 0
    renamed = onnx.load(model)
    renamed.graph.input[0].name = renamed.graph.node[0].input[0] = "picture"
    onnx.save(renamed, model.with_name("renamed.onnx"))
    cut = onnx.load(model)
    cut.graph.node[0].name = "first_of_all"
    onnx.save(cut, model.with_name("cut.onnx"))
    assert quick("solve", "cut.onnx", "--quick", "--flops", "0.5").code == 0
    assert quick("sweep", model, "--flops", "0.7", "--solver", "uniform", "--quick").code == 0
    for arguments, said in (
        (("net.plan.json", "cut.plan.json"), "of different models, 'net' and 'cut'"),
        (("net.plan.json", "--pruned", "retrained.pruned.onnx"), "was not made from"),
        (("net.plan.json", "--pruned", "renamed.onnx"), "its inputs are 'picture'"),
        (("net.sweep.csv", "--model", model), "--model belongs to a plan"),
        (("net.sweep.csv", "--pruned", "net.pruned.onnx"), "--pruned belongs to a plan"),
    ):
        done = quick("report", *arguments, "-o", "page.html")
        assert done.code == 2 and said in done.err, (arguments, done.err)
        assert not model.with_name("page.html").exists()
    assert quick("report", "net.plan.json", "retrained.plan.json", "-o", "both.html").code == 0


def test_a_report_never_takes_the_place_of_a_model(quick: Command, model: Path) -> None:
    assert quick("solve", model, "--quick", "--flops", "0.5").code == 0
    before = model.read_bytes()
    for arguments in (
        ("report", "net.plan.json", "-o", model),
        ("report", "net.plan.json", "-o", "page"),
        ("solve", model, "--quick", "--flops", "0.5", "--report", "net.pruned.onnx"),
    ):
        done = quick(*arguments, "--force")
        assert done.code == 2 and "let its name end in .html" in done.err, done.err
    assert model.read_bytes() == before


def test_the_page_has_the_figures_of_the_command_line(quick: Command, model: Path) -> None:
    said = json.loads(quick("solve", model, "--quick", "--flops", "0.5", "--report", "one.html", "--json").out)
    assert quick("report", "net.plan.json", "-m", model, "--pruned", "net.pruned.onnx", "-o", "two.html").code == 0
    before, after = said["params"]["before"], said["params"]["after"]
    tile = f'{100 * after / before:.1f} %</strong><span class="note">{text.count(before)} → {text.count(after)}<'
    assert tile in model.with_name("one.html").read_text(encoding="utf-8")
    assert tile in model.with_name("two.html").read_text(encoding="utf-8")


def test_solve_writes_its_report_with_the_samples_that_it_made(quick: Command, model: Path) -> None:
    done = quick("solve", model, "--flops", "0.5", "--solver", "bisection", "--report", "page.html")
    assert done.code == 0, done.err
    assert "report     page.html" in done.out
    page = model.with_name("page.html").read_text(encoding="utf-8")
    assert "Made samples" in page and "data:image/png;base64,iVBOR" in page and "Group graph" in page
    done = quick("solve", model, "--flops", "0.5", "--quick", "--report", "bare.html", "--force", "--json")
    assert json.loads(done.out)["report"] == "bare.html"
    assert "Made samples" not in model.with_name("bare.html").read_text(encoding="utf-8")


def test_time_and_lower_precision_are_on_the_page(quick: Command, model: Path) -> None:
    asked = ("solve", model, "--flops", "0.5", "--solver", "bisection", "--calib", "synthetic:32", "--bench")
    done = quick(*asked, "--quantize", "int8", "--report", "page.html", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    page = model.with_name("page.html").read_text(encoding="utf-8")
    assert f"time in onnxruntime</span><strong>{100 * said['bench']['ratio']:.1f} %<" in page
    share = said["quantized"]["bytes_after"] / said["quantized"]["bytes_before"]
    assert f"int8 file</span><strong>{100 * share:.1f} %<" in page and "int8 agreement" in page


def test_a_report_that_could_not_be_written_is_refused_at_once(quick: Command, model: Path) -> None:
    for arguments, said in (
        (("--report", "page.html", "--dry-run"), "--dry-run writes none"),
        (("--report", "net.onnx"), "net.onnx"),
        (("--report", "net.pruned.onnx"), "let its name end in .html"),
        (("--report", "gone/page.html"), "gone"),
    ):
        done = quick("solve", model, "--flops", "0.5", "--quick", *arguments)
        assert done.code == 2 and said in done.err, done.err
        assert not model.with_name("net.pruned.onnx").exists()
