# SPDX-License-Identifier: Apache-2.0
"""What is done is told to the logger "graphprune", with what came of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from recovery_models import block

import graphprune
from graphprune.phases import Event, logged, phase, progress

if TYPE_CHECKING:
    from collections.abc import Iterable


def events(records: Iterable[logging.LogRecord]) -> list[Event]:
    return [record.event for record in records if isinstance(getattr(record, "event", None), Event)]  # type: ignore[attr-defined]


def test_the_functions_of_the_package_tell_what_they_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "graphprune")
    model = graphprune.load(block(norm=True))
    plan = graphprune.solve(model, flops=0.5)
    graphprune.verify(model, graphprune.apply(model, plan), plan)
    ended = [event for event in events(caplog.records) if event.kind == "end"]
    names = [event.phase for event in ended]
    assert names[0] == "loading"
    assert {"analysis", "solving", "surgery", "verification"} <= {*names}
    (solving,) = (event for event in ended if event.phase == "solving")
    assert solving.figures["flops"] == [plan.budget.before, plan.budget.after]
    assert solving.seconds > 0
    assert f"solving: {solving.seconds:.2f} s, flops {plan.budget.before} -> {plan.budget.after}" in caplog.messages


def test_nothing_is_counted_for_those_who_only_read_the_outcome(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "graphprune")
    with phase("outer"):
        progress(1, 2)
    assert [event.kind for event in events(caplog.records)] == ["begin", "end"]
    caplog.set_level(logging.DEBUG, "graphprune")
    with phase("outer"):
        progress(1, 2, "part")
    (told,) = (event for event in events(caplog.records) if event.kind == "progress")
    assert (told.phase, told.step, told.done, told.total) == ("outer", "part", 1, 2)
    assert told.message == "part: 1 of 2"


def test_a_phase_within_one_of_its_name_is_a_part_of_it(caplog: pytest.LogCaptureFixture) -> None:
    @logged("loading", lambda result: {"bytes": result})
    def load() -> int:
        return 7

    caplog.set_level(logging.INFO, "graphprune")
    with phase("loading"):
        load()
    first, last = events(caplog.records)
    assert (first.kind, last.kind) == ("begin", "end")
    assert last.figures == {"bytes": 7}


def test_a_phase_that_fails_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "graphprune")
    with pytest.raises(ValueError, match="broken"), phase("outer"), phase("inner"):
        raise ValueError("broken")
    assert [(event.phase, event.kind) for event in events(caplog.records)] == [
        ("outer", "begin"),
        ("inner", "begin"),
        ("inner", "failed"),
        ("outer", "failed"),
    ]


def test_progress_outside_of_phases_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "graphprune")
    progress(1, 2)
    assert events(caplog.records) == []


def test_a_hook_hears_all_events_and_only_within_its_statement() -> None:
    heard: list[Event] = []
    with graphprune.listening(heard.append):
        model = graphprune.load(block(norm=True))
        plan = graphprune.solve(model, flops=0.5)
    assert [event.kind for event in heard if event.phase == "solving"][:1] == ["begin"]
    assert {event.phase for event in heard if event.kind == "end"} >= {"loading", "analysis", "solving"}
    count = len(heard)
    graphprune.apply(model, plan)
    assert len(heard) == count


def test_what_a_hook_raises_ends_the_work() -> None:
    class EnoughError(Exception):
        pass

    def stop(event: Event) -> None:
        if event.phase == "analysis":
            raise EnoughError

    with pytest.raises(EnoughError), graphprune.listening(stop):
        graphprune.analyze(graphprune.load(block(norm=True)))
