# SPDX-License-Identifier: Apache-2.0
"""Criteria that look at samples, from the command line: `solve --calib`, `compare --calib`, `sweep --calib`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from graphprune.plan.file import read_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


@pytest.fixture
def images(model: Path) -> Path:
    """Write labelled samples beside the model."""
    path = model.with_name("images.npz")
    rng = np.random.default_rng(0)
    np.savez(path, image=rng.standard_normal((48, 3, 12, 12)).astype(np.float32), labels=rng.integers(0, 5, 48))
    return path


@pytest.mark.parametrize(
    ("criterion", "source"),
    [
        (("taylor",), "activation times gradient of the cross-entropy of the labels"),
        (("reconstruct", "--set", "ridge=0.01"), "error of its readers without it"),
        (("domino-io", "--set", "base=taylor"), "weight times gradient of the cross-entropy of the labels"),
    ],
)
def test_a_model_is_pruned_by_what_samples_say(
    quick: Command, model: Path, images: Path, criterion: tuple[str, ...], source: str
) -> None:
    arguments = ("solve", model, "--flops", "0.5", "--calib", images, "--round-to", "1", "--criterion", *criterion)
    done = quick(*arguments, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["verification"]["status"] == "verified"
    plan = read_plan(model.with_name("net.plan.json"))
    assert any(text.startswith(source) for text in plan.solver.options["scores_from"])
    assert quick(*arguments, "--force").code == 0
    assert read_plan(model.with_name("net.plan.json")) == plan


def test_without_samples_it_says_how_to_give_some(quick: Command, model: Path) -> None:
    for arguments in (("--criterion", "fisher"), ("--criterion", "domino-o", "--set", "base=fisher")):
        done = quick("solve", model, "--flops", "0.5", "--quick", *arguments)
        assert done.code == 2
        assert "looks at samples, and none are given" in done.err and "--calib SOURCE" in done.err
    assert [path.name for path in model.parent.iterdir()] == ["net.onnx"]


def test_compare_takes_the_same_samples(quick: Command, model: Path, images: Path) -> None:
    arguments = ("compare", model, "--flops", "0.5", "--solver", "uniform", "--criterion", "hrank,l1")
    done = quick(*arguments, "--quick")
    assert done.code == 2 and "'hrank' looks at samples" in done.err
    done = quick(*arguments, "--calib", images, "--json")
    assert done.code == 0, done.err
    assert [trial["criterion"] for trial in json.loads(done.out)["trials"]] == ["hrank", "l1"]
    blind = quick("compare", model, "--flops", "0.5", "--solver", "uniform", "--criterion", "all", "--json", "--quick")
    assert "hrank" not in {trial["criterion"] for trial in json.loads(blind.out)["trials"]}


def test_sweep_opens_them_in_each_process(graphprune: Command, model: Path, images: Path) -> None:
    arguments = ("sweep", model, "--flops", "0.8,0.5", "--solver", "uniform", "--criterion", "reconstruct", "--json")
    one = graphprune(*arguments, "--calib", images, "-o", "one.csv")
    two = graphprune(*arguments, "--calib", images, "-o", "two.csv", "--jobs", "2")
    assert one.code == 0 and two.code == 0, one.err + two.err
    first, second = (
        [(trial["budget"], trial["widths"]) for trial in json.loads(done.out)["trials"]] for done in (one, two)
    )
    assert first == second and len(first) == 2
