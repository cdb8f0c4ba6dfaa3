# SPDX-License-Identifier: Apache-2.0
"""`graphprune solve` with solvers that look at samples, end to end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from graphprune.solvers import widths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]

SOLVERS = [name for name in widths.names() if widths.needs_samples(name)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    images = rng.standard_normal((96, 3, 12, 12)).astype(np.float32)
    np.savez(path, image=images, labels=rng.integers(0, 5, 96))
    return path


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_model_is_pruned_and_recovered(quick: Command, model: Path, data: Path, solver: str) -> None:
    done = quick(
        *("solve", model, "--flops", "0.5", "--solver", solver, "--calib", data, "--round-to", "1"),
        *("--recover", "least-squares", "--json"),
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["verification"]["status"] == "verified"
    plan = json.loads(model.with_name("net.plan.json").read_text())
    assert plan["budget"]["after"] <= plan["budget"]["limit"]
    assert plan["solver"]["name"] == solver and plan["solver"]["trace"]


@pytest.mark.parametrize(
    "constraint",
    [("--skip", "d"), ("--max-prune", "0.4"), ("--round-to", "8"), ("--params", "0.6"), ("--memory", "0.8")],
)
@pytest.mark.parametrize("solver", SOLVERS)
def test_constraints_hold(quick: Command, model: Path, data: Path, solver: str, constraint: tuple[str, str]) -> None:
    rounding = () if constraint[0] == "--round-to" else ("--round-to", "1")
    command = ("solve", model, "--flops", "0.7", "--solver", solver, "--calib", data, *rounding, *constraint)
    done = quick(*command)
    assert done.code == 0, done.err
    plan = json.loads(model.with_name("net.plan.json").read_text())
    for budget in (plan["budget"], *plan.get("further_budgets", ())):
        assert budget["after"] <= budget["limit"]
    for group in plan["groups"]:
        if constraint[0] == "--max-prune":
            assert len(group["kept"]) >= 0.6 * group["size"]
        if constraint[0] == "--round-to":
            assert len(group["kept"]) % 8 == 0
        if constraint[0] == "--skip" and group["name"] == "d":
            assert len(group["kept"]) == group["size"]


def test_settings_and_a_contest(graphprune: Command, model: Path, data: Path) -> None:
    done = graphprune(
        *("solve", model, "--flops", "0.5", "--solver", "sensitivity", "--set", "stages=1", "--set", "streams=no"),
        *("--adapt", "l1, bn-scale", "--calib", data, "--round-to", "1"),
    )
    assert done.code == 0, done.err
    assert "channels by" in done.out and "accuracy on 21 held-out samples" in done.out
    plan = json.loads(model.with_name("net.plan.json").read_text())
    assert [entry["name"] for entry in plan["solver"]["options"]["adapt"]["contest"]] == [
        "l1",
        "bn-scale",
        "sensitivity",
    ]
    assert [step["stage"] for step in plan["solver"]["trace"]] == ["1 of 1", "fill"]


def test_what_is_missing_or_means_nothing(quick: Command, model: Path, data: Path) -> None:
    for solver in SOLVERS:
        done = quick("solve", model, "--quick", "--flops", "0.5", "--solver", solver)
        assert done.code == 2 and "--calib" in done.err
    cases = [
        (("--solver", "sensitivity", "--set", "streams=maybe"), "'streams' cannot be 'maybe'"),
        (("--solver", "cap", "--set", "trials=0"), "must be positive"),
        (("--solver", "cap", "--allow-empty"), "--allow-empty"),
        (("--adapt", "l1,nothing"), "unknown criterion 'nothing'"),
    ]
    for arguments, message in cases:
        done = quick("solve", model, "--flops", "0.5", "--calib", data, *arguments)
        assert done.code == 2 and message in done.err, done.err
        assert "Traceback" not in done.err
    unreachable = quick("solve", model, "--flops", "0.0001", "--calib", data, "--solver", "sensitivity")
    assert unreachable.code == 1 and "smallest reachable" in unreachable.err


def test_compare_gives_samples_to_those_who_look_at_some(quick: Command, model: Path, data: Path) -> None:
    done = quick(
        *("compare", model, "--flops", "0.5", "--solver", "uniform,stage-wise", "--data", data, "--calib", data),
        *("--round-to", "1", "--json"),
    )
    assert done.code == 0, done.err
    trials = json.loads(done.out)["trials"]
    assert [trial["solver"] for trial in trials] == ["uniform", "stage-wise"]
    assert all("note" not in trial and trial["kept_saliency"] > 0 for trial in trials)


@pytest.mark.parametrize(
    ("more", "unread"),
    [
        (("--flops", "0.5", "--quick"), "neither bisection nor bn-scale looks"),
        (("--flops", "0.5", "--criterion", "domino-o", "--quick"), "neither bisection nor domino-o looks"),
        (("--lossless", "--quick"), "--lossless does not look"),
        (("--flops", "0.5", "--recover", "bias"), ""),
        (("--flops", "0.5", "--criterion", "domino-o", "--set", "base=taylor"), ""),
        (("--flops", "0.5", "--adapt", "l1,l2"), ""),
    ],
)
def test_samples_that_nothing_reads_are_said_to_be_unread(
    quick: Command, model: Path, data: Path, more: tuple[str, ...], unread: str
) -> None:
    done = quick("solve", model, *more, "--calib", data, "--round-to", "1", "--dry-run", "--json")
    assert done.code == 0, done.err
    notes = [note for note in json.loads(done.out)["notes"] if "not read" in note]
    assert [unread in note for note in notes] == ([True] if unread else [])


def test_widths_are_measured_where_there_are_samples_and_nobody_names_a_solver(
    quick: Command, model: Path, data: Path
) -> None:
    done = quick("solve", model, "--flops", "0.5", "--calib", data)
    assert done.code == 0, done.err
    assert "solver  sensitivity: widths are measured, for " in done.err
    assert "less: --solver stage-wise or --solver bisection" in done.err
    plan = json.loads(model.with_name("net.plan.json").read_text())
    assert plan["solver"]["name"] == "sensitivity"
    assert [step["name"] for step in plan["steps"]] == ["recover", "eval"]  # by least squares, without being asked
    assert plan["steps"][0]["method"] == "least-squares"


@pytest.mark.parametrize("bare", [("--recover", "none"), ("--quick",)])
def test_the_bare_surgery_measures_no_widths(quick: Command, model: Path, data: Path, bare: tuple[str, ...]) -> None:
    done = quick("solve", model, "--flops", "0.5", "--calib", data, *bare)
    assert done.code == 0, done.err
    plan = json.loads(model.with_name("net.plan.json").read_text())
    assert plan["solver"]["name"] == "bisection"
    assert [step["name"] for step in plan["steps"]] == ["eval"]
