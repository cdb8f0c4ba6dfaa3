# SPDX-License-Identifier: Apache-2.0
"""Sweeps: a table that is whole at every instant, rows that are made once, and the Pareto front."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import pytest
from constraint_cases import NAMES, TEXT, WEIGHTS
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import model

from graphprune import SolveOptions
from graphprune.errors import UsageError
from graphprune.report.chart import chart
from graphprune.report.trials import Trial, sparkline
from graphprune.trials import sweep as module
from graphprune.trials.contest import Contest
from graphprune.trials.rows import COLUMNS, dumps, front, key_of, read_rows
from graphprune.trials.sweep import Sweep, sweep
from graphprune.trials.workers import Workers

if TYPE_CHECKING:
    from pathlib import Path

CONTEST = Contest(("bisection", "uniform"), ("l1",), SolveOptions(round_to=1))
WHAT = Sweep("flops", (0.7, 0.4, 0.001), CONTEST)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    proto = model(TEXT, WEIGHTS)
    for node, name in zip(proto.graph.node, NAMES, strict=True):
        node.name = name
    onnx.save(proto, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def timeless(trial: Trial) -> Trial:
    return replace(trial, seconds=0.0)


def test_a_row_per_solver_criterion_and_budget(network: Path, tmp_path: Path) -> None:
    trials = sweep(network, tmp_path / "t.csv", WHAT)
    assert [(trial.solver, trial.budget) for trial in trials] == [
        *(("bisection", "flops 0.7"), ("bisection", "flops 0.4"), ("bisection", "flops 0.001")),
        *(("uniform", "flops 0.7"), ("uniform", "flops 0.4"), ("uniform", "flops 0.001")),
    ]
    assert [bool(trial.note) for trial in trials] == [False, False, True] * 2
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS) and len(lines) == 7


def test_an_ended_run_goes_on_where_it_was(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep(network, tmp_path / "whole.csv", WHAT)
    made: list[Trial] = []

    def stop_after_two(trial: Trial) -> None:
        made.append(trial)
        if len(made) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(network, tmp_path / "t.csv", WHAT, report=stop_after_two)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3
    made.clear()
    analysed = []
    monkeypatch.setattr(module.api, "analyze", lambda *given: analysed.append(1) or analyze(*given))
    trials = sweep(network, tmp_path / "t.csv", WHAT, report=made.append)
    assert len(made) == 4 and len(analysed) == 1  # once, not once per budget
    assert list(map(timeless, trials)) == list(map(timeless, whole))
    again = sweep(network, tmp_path / "t.csv", WHAT, report=made.append)
    assert len(made) == 4 and len(analysed) == 1
    assert [key_of(trial) for trial in again] == [key_of(trial) for trial in whole]


analyze = module.api.analyze


def test_more_points_are_added_and_others_stay(network: Path, tmp_path: Path) -> None:
    sweep(network, tmp_path / "t.csv", WHAT)
    more = sweep(network, tmp_path / "t.csv", replace(WHAT, targets=(0.5,)))
    assert len(more) == 2
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 9


def test_several_processes_find_the_same(network: Path, tmp_path: Path) -> None:
    alone = sweep(network, tmp_path / "one.csv", WHAT)
    together = sweep(network, tmp_path / "two.csv", replace(WHAT, workers=Workers(2)))
    assert list(map(timeless, together)) == list(map(timeless, alone))


def test_a_table_of_something_else_is_not_mixed(network: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    sweep(network, table, WHAT)
    before = table.read_bytes()
    other = replace(WHAT, contest=replace(CONTEST, options=SolveOptions(round_to=2)))
    with pytest.raises(UsageError, match="of another model or of other options"):
        sweep(network, table, other)
    for content, message in (("a,b\n1,2\n", "not a table"), (dumps([], "x")[:-3], "not a table"), ("\0", "t.csv")):
        table.write_text(content)
        with pytest.raises(UsageError, match=message):
            sweep(network, table, WHAT)
        assert table.read_text() == content
    table.write_bytes(before.replace(b",l1,", b",l1,\xff"))
    with pytest.raises(UsageError, match="cannot be read"):
        sweep(network, table, WHAT)
    assert len(sweep(network, table, other, force=True)) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [({"targets": ()}, "no budget"), ({"targets": (0.5, 0.5)}, "given twice")],
)
def test_sweeps_that_mean_nothing(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(WHAT, **change)  # type: ignore[arg-type]


def trial(cost: int, kept: float, solver: str = "a", **rest: object) -> Trial:
    return Trial(solver, "l1", f"flops {cost}", "flops", (100, cost), (100, cost), (9, 5), ((1, 2),), kept, **rest)  # type: ignore[arg-type]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        trial(50, 0.1 + 0.2, bound=0.1 + 0.7, latency=(0.1, 0.05, 1 / 3), accuracy=(0.9, 2 / 3)),
        trial(40, 0.25, "b", agreement=0.7),
        Trial("a", "l1", "flops 1", "flops", note='no, "never",\nnot even so'),
    ]
    (tmp_path / "t.csv").write_text(dumps(rows, "x"))
    assert read_rows(tmp_path / "t.csv", "x") == rows
    assert read_rows(tmp_path / "none.csv", "x") == []


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=12, unique_by=lambda pair: pair))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    trials = [trial(cost, kept / 10, solver=f"s{kept}") for cost, kept in points]
    found = front(trials)
    for own in trials:
        beaten = any(
            (other.cost[1] <= own.cost[1] and other.kept > own.kept)
            or (other.cost[1] < own.cost[1] and other.kept >= own.kept)
            for other in trials
        )
        assert (key_of(own) in found) == (not beaten)


def test_measured_quality_makes_one_front_for_all_criteria() -> None:
    one, two = trial(50, 0.9, accuracy=(1.0, 0.4)), replace(trial(60, 0.1, accuracy=(1.0, 0.8)), criterion="l2")
    three = replace(trial(70, 0.95, accuracy=(1.0, 0.7)), criterion="l2")
    assert front([one, two, three]) == {key_of(one), key_of(two)}
    assert front([replace(each, accuracy=None) for each in (one, two, three)]) == {*map(key_of, (one, two, three))}


def test_the_chart_is_the_same_for_the_same_trials() -> None:
    rows = [trial(50, 0.5), trial(40, 0.4, "b"), Trial("b", "l2", "flops 1", "flops", note="no")]
    drawn = chart("evil $x$ <name>\x1b", rows, front(rows))
    assert drawn == chart("evil $x$ <name>\x1b", rows, front(rows))
    assert b"<svg" in drawn and b"&lt;name&gt;" in drawn and b"\x1b" not in drawn and b"l2" in drawn


def test_a_bar_per_group_and_few_bars_for_many() -> None:
    assert sparkline([(8, 8), (4, 8), (0, 8)]) == "█▄▁"
    assert sparkline([]) == ""
    many = sparkline([(1, 1)] * 50 + [(1, 8)] * 50, longest=10)
    assert many == "█████▁▁▁▁▁"
