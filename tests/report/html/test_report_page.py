# SPDX-License-Identifier: Apache-2.0
"""The report: what it says of a plan, two plans and a sweep; that it loads nothing; and that a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from recovery_models import block
from tiny_models import model

import graphprune
from graphprune.errors import UsageError
from graphprune.plan.schema import CHOSEN_BY, Step
from graphprune.planning.score_groups import score_groups
from graphprune.report.html import group_rows
from graphprune.report.html.contents import plan_contents
from graphprune.report.html.report_page import ReportSubject, report_page
from graphprune.report.trials import Trial
from graphprune.trials.rows import front

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan

STEP = Step("recover", "least-squares", "error", 0.5, 0.1, True, {"samples": 100, "held_out": 10})
TRIALS = tuple(
    Trial("bisection", "l1", f"flops {share}", "flops", (1000, int(1000 * share)), kept=share + 0.1, seconds=0.1)
    for share in (0.3, 0.5, 0.8)
)


@pytest.fixture(scope="module")
def whole() -> ReportSubject:
    analysis = graphprune.analyze(graphprune.load(block(norm=True)))
    options = graphprune.SolveOptions(criterion="l1")
    plan = replace(graphprune.solve(analysis, flops=0.5, options=options), steps=(STEP,))
    pruned = graphprune.apply(analysis, plan)
    return ReportSubject((plan,), analysis, pruned, score_groups(analysis, options))


@pytest.fixture(scope="module")
def plan(whole: ReportSubject) -> Plan:
    return whole.plans[0]


class Page(HTMLParser):
    """What a page loads, links to, and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.loads += [str(value) for name, value in attrs if name in ("src", "srcset", "data") and value]
        if tag == "link":
            self.loads.append(str(held.get("href")))
        if held.get("id"):
            self.ids.append(str(held["id"]))
        if tag == "a":
            self.targets.append(str(held["href"]))


def data(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_a_page_has_all_sections_loads_nothing_and_is_small(whole: ReportSubject) -> None:
    text = report_page("tiny", whole)
    page = Page(text)
    assert page.loads == []
    assert "default-src 'none'" in text and len(text.encode()) < 3_000_000
    assert len(page.ids) == len(set(page.ids))
    assert {target.removeprefix("#") for target in page.targets} <= {*page.ids}
    assert {"layers", "groups", "frozen", "saliencies", "graph", "search"} <= {*page.ids}
    assert set(data(text, "specs")) == {"layers", "saliencies"}


def test_it_answers_what_went_why_something_stays_and_what_recovery_brought(whole: ReportSubject, plan: Plan) -> None:
    shown = plan_contents(plan, whole.analysis, whole.pruned, whole.scores)
    lost = [layer.flops_before - layer.flops_after for layer in plan.layers]
    assert shown.lost[0]["node"] == plan.layers[int(np.argmax(lost))].node
    assert "graph output" in {entry["kind"] for entry in shown.frozen}
    assert any("graph output" in layer["why"] for layer in shown.layers)
    assert shown.steps == ["recover: least-squares: error 0.5 -> 0.1 (10 samples held out, 100 used)"]
    assert [tile.label for tile in shown.tiles] == ["FLOPs", "parameters", "recover: error", "verification"]
    assert shown.budgets[0]["share"] <= 1


def test_strips_and_saliencies_show_what_stays(whole: ReportSubject, plan: Plan) -> None:
    shown = plan_contents(plan, whole.analysis, whole.pruned, whole.scores)
    for strip, group in zip(shown.groups, plan.groups, strict=True):
        stays = [at for first, count in strip["channels"] for at in range(first, first + count)]
        assert stays == list(group.kept)
        (row,) = [row for row in shown.saliencies if row["group"].split()[0] == group.id]
        assert sorted(atom for atom, stays in zip(row["atom"], row["stays"], strict=True) if stays) == list(group.kept)
        assert row["saliency"] == sorted(row["saliency"], reverse=True)


def test_every_member_of_a_group_can_be_searched(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    group = plan.groups[0]
    wide = replace(plan, groups=(replace(group, members=group.members * 40), *plan.groups[1:]))
    (shown, *_) = plan_contents(wide).groups
    assert len(shown["members"]) == len(group.members) * 40 > 50 and shown["more"] == 0
    monkeypatch.setattr(group_rows, "_MOST_MEMBERS", 3)
    (shown, other, *_) = plan_contents(wide).groups
    assert len(shown["members"]) == 3 and shown["more"] == len(group.members) * 40 - 3
    assert other["members"] == [] and other["more"] == len(plan.groups[1].members)


def test_the_group_graph_shows_what_stays(whole: ReportSubject, plan: Plan) -> None:
    text = report_page("tiny", whole)
    for group in plan.groups:
        assert f">{len(group.kept)} of {group.size}</text>" in text
        assert f"{len(group.kept)} of {group.size} stay" in data(text, "boxes")[group.id]["facts"]


def test_a_line_is_drawn_only_where_saliency_decided(whole: ReportSubject, plan: Plan) -> None:
    by_saliency = report_page("tiny", whole)
    assert "The most salient ones stay; a line shows the lowest saliency that stays." in by_saliency
    assert "lowest" in json.dumps(data(by_saliency, "specs")["saliencies"])
    ids = [group.id for group in plan.groups]
    options = {**plan.solver.options, CHOSEN_BY: {"backward elimination": ids}}
    measured = replace(plan, solver=replace(plan.solver, options=options))
    text = report_page("tiny", replace(whole, plans=(measured,), pruned=None))
    assert "It did not decide which of them stay: channels were chosen by backward elimination." in text
    assert "lowest" not in json.dumps(data(text, "specs")["saliencies"])
    assert "Channels were chosen by backward elimination." in text


def test_where_somebody_chose_other_channels_no_line_is_drawn(whole: ReportSubject, plan: Plan) -> None:
    assert whole.scores
    at = next(at for at, group in enumerate(plan.groups) if len(group.kept) < group.size)
    group = plan.groups[at]
    least = np.sort(np.argsort(whole.scores.per_group[at], kind="stable")[: len(group.kept)])
    groups = [*plan.groups]
    groups[at] = replace(group, kept=tuple(least.tolist()))
    shown = plan_contents(replace(plan, groups=tuple(groups)), whole.analysis, None, whole.scores)
    (row,) = [row for row in shown.saliencies if row["group"].split()[0] == group.id]
    assert row["by"] and "It decided in" in shown.deciding


def test_charts_start_at_zero_on_linear_axes(whole: ReportSubject) -> None:
    panels = data(report_page("tiny", whole), "specs")["layers"]["hconcat"]
    for panel in panels:
        for bars in panel["layer"]:
            assert bars["mark"]["type"] == "bar" and "scale" not in bars["encoding"]["x"]


def test_axes_of_whole_numbers_have_no_fractions(whole: ReportSubject) -> None:
    specs = data(report_page("tiny", whole), "specs")
    axes = [bars["encoding"]["x"]["axis"] for panel in specs["layers"]["hconcat"] for bars in panel["layer"]]
    axes.append(specs["saliencies"]["layer"][0]["encoding"]["x"]["axis"])
    assert [axis["tickMinStep"] for axis in axes] == [1] * 5
    assert all(axis.get("format") != "~s" for axis in axes), "which brings all labels to one prefix"


def test_two_plans_stand_side_by_side(plan: Plan) -> None:
    other = graphprune.solve(graphprune.load(block(norm=True)), flops=0.8)
    text = report_page("both", ReportSubject((plan, other)))
    rows = next(iter(data(text, "specs")["both"]["data"].values()))
    assert {row["plan"] for row in rows} == {"first", "second"} and len(rows) == 2 * len(plan.layers)
    assert "Second plan" in text
    assert "Layers of the first plan" in text and "Coupled groups of the first plan" in text
    assert "of the first plan" not in report_page("one", ReportSubject((plan,)))


def test_a_sweep_shows_its_front_and_the_original() -> None:
    text = report_page("sweep", ReportSubject(trials=TRIALS, best=frozenset(front(TRIALS))))
    rows = next(iter(data(text, "specs")["front"]["data"].values()))
    assert [row["series"] for row in rows] == ["bisection, l1"] * 3 + ["original"]
    assert rows[-1]["cost"] == rows[-1]["quality"] == 100
    legends = re.findall(r'"legend":(null|{)', json.dumps(data(text, "specs")["front"]).replace(" ", ""))
    assert legends and "null" not in legends, "a legend that is hidden and shown"


def test_names_are_no_markup(plan: Plan) -> None:
    bad = "</script><script>alert(1)</script>\x1b[31m{{ 7 * 7 }}"
    layers = (replace(plan.layers[0], node=bad), *plan.layers[1:])
    named = replace(plan, layers=layers, groups=(replace(plan.groups[0], name=bad), *plan.groups[1:]))
    text = report_page(bad, ReportSubject((named,)))
    assert "<script>alert" not in text and "\x1b" not in text and "{{ 7 * 7 }}" in text


def deep(blocks: int) -> graphprune.Model:
    """Return a network of residual blocks, of five nodes each, with long names."""
    lines, weights = ["a0 = Conv (image, stem)"], {"stem": (32, 3, 1, 1)}
    for at in range(blocks):
        first, second = f"stages.{at}.residual_branch.first.weight", f"stages.{at}.residual_branch.second.weight"
        weights |= {first: (32, 32, 1, 1), second: (32, 32, 1, 1)}
        lines += [f'b{at} = Conv (a{at}, "{first}")', f"c{at} = Relu (b{at})", f'd{at} = Conv (c{at}, "{second}")']
        lines += [f"e{at} = Add (d{at}, a{at})", f"a{at + 1} = Relu (e{at})"]
    lines += [f"g = GlobalAveragePool (a{blocks})", "f = Flatten (g)", "scores = Gemm (f, head)"]
    text = "(float[1,3,4,4] image) => (float[1,10] scores) {\n" + "\n".join(lines) + "\n}"
    return graphprune.load(model(text, weights | {"head": (32, 10)}))


def test_the_page_of_a_thousand_nodes_stays_small() -> None:
    analysis = graphprune.analyze(deep(200))
    assert len(analysis.graph.nodes) > 1000
    options = graphprune.SolveOptions(criterion="l1")
    plan = graphprune.solve(analysis, flops=0.5, options=options)
    text = report_page("deep", ReportSubject((plan,), analysis, None, score_groups(analysis, options)))
    assert len(text.encode()) < 3_000_000
    assert "left out" not in text


def test_very_many_saliencies_are_left_out_and_counted(
    whole: ReportSubject, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = min(group.size for group in plan.groups)
    monkeypatch.setattr(group_rows, "_MOST_SALIENCIES", narrow)
    shown = plan_contents(plan, whole.analysis, whole.pruned, whole.scores)
    assert len(shown.saliencies) == 1 and shown.unshown == len(plan.groups) - 1
    assert f"{shown.unshown} groups with very many channels are left out" in report_page("tiny", whole)


def test_layers_of_one_name_are_told_apart(plan: Plan) -> None:
    twice = replace(plan, layers=plan.layers[:1] * 3)
    assert len({layer["node"] for layer in plan_contents(twice).layers}) == 3


def test_plans_of_different_models_are_refused(plan: Plan) -> None:
    other = replace(plan, layers=(replace(plan.layers[0], width=plan.layers[0].width + 1), *plan.layers[1:]))
    with pytest.raises(UsageError, match="of different models"):
        report_page("both", ReportSubject((plan, other)))


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to report"):
        report_page("nothing", ReportSubject())


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


# What a reader does, done by a script within the page: search, point at a channel, walk with the keyboard, zoom.
DEEDS = """
<script>
const wait = () => document.documentElement.dataset.ready ? act() : setTimeout(wait, 50);
const act = () => {
  const told = {}, first = selector => document.querySelector(selector);
  const search = first("#search");
  search.value = "no group has such a name";
  search.dispatchEvent(new Event("input"));
  told.nothing = [...document.querySelectorAll("details.group")].every(group => group.hidden);
  told.matches = first("#matches").textContent;
  told.unseen = document.querySelectorAll(".sought .row:not(.unfound)").length;
  search.value = "SECOND";
  search.dispatchEvent(new Event("input"));
  told.found = [...document.querySelectorAll("details.group")].filter(group => !group.hidden).length;
  told.seen = [...document.querySelectorAll(".sought .row:not(.unfound)")].map(row => row.dataset.box);
  search.value = "";
  search.dispatchEvent(new Event("input"));
  told.restored = document.querySelectorAll(".sought").length === 0;
  told.all = [...document.querySelectorAll("details.group")].every(group => !group.hidden);
  const strip = first(".strip"), box = strip.getBoundingClientRect();
  strip.dispatchEvent(new MouseEvent("mousemove", {clientX: box.left + 1, clientY: box.top + 1}));
  told.hover = first("#strip-text").textContent;
  const group = first("details.group");
  group.open = true;
  group.dispatchEvent(new Event("toggle"));
  told.numbers = first(".numbers").textContent;
  told.members = group.querySelectorAll("li").length;
  const row = first(".picture .row");
  row.focus();
  told.focus = document.activeElement === row;
  row.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
  told.chosen = first("#side").textContent;
  const wide = Number(first(".picture svg").getAttribute("width"));
  first("[data-zoom='1.25']").click();
  told.zoom = Number(first(".picture svg").getAttribute("width")) / wide;
  const result = document.createElement("pre");
  result.id = "told";
  result.textContent = JSON.stringify(told);
  document.body.append(result);
};
wait();
</script>
"""


def spoken(kept: tuple[int, ...], size: int) -> str:
    """Return what a group says of its channels."""
    if len(kept) == size:
        return "All channels stay."
    runs: list[list[int]] = []
    for atom in kept:
        if runs and runs[-1][-1] == atom - 1:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    shown = [f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return f"Channels that stay: {', '.join(shown)}."


def browsed(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Let Chromium show a page; its document goes to stdout, what it says on the console to stderr."""
    assert CHROMIUM
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", f"--user-data-dir={folder}", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed; the page is parsed in the tests above")
def test_a_browser_draws_it_and_search_hover_and_keyboard_work(whole: ReportSubject, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    whole_page = report_page("tiny", whole)
    head, end, tail = whole_page.rpartition("</body>")  # there may be another one in a script
    page.write_text(f"{head}{DEEDS}{end}{tail}", encoding="utf-8")
    done = browsed(page, tmp_path / "profile")
    assert 'data-ready="true"' in done.stdout
    assert done.stdout.count("marks") >= 2, "no chart was drawn"
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found
    told = json.loads(found[1].replace("&gt;", ">").replace("&amp;", "&"))
    assert told["nothing"] and told["all"] and told["focus"]
    assert told["matches"].startswith("0 of ") and told["unseen"] == 0 and told["restored"]
    named = {group.id for group in whole.plans[0].groups if "second" in str(group.members)}
    assert told["found"] == len(named) > 0 and named <= {*told["seen"]} < {*data(whole_page, "boxes")}
    group = whole.plans[0].groups[0]
    assert told["members"] == len(group.members)
    assert told["numbers"] == spoken(group.kept, group.size)
    assert re.fullmatch(r"channel 0 (stays|went)", told["hover"])
    assert "graph input" in told["chosen"] and told["zoom"] == 1.25
