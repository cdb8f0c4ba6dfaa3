# SPDX-License-Identifier: Apache-2.0
"""`graphprune widen`: what it writes and says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import graphprune

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Outcome


def test_a_wider_file(quick: Callable[..., Outcome], model: Path) -> None:
    done = quick("widen", model, "--factor", 2)
    assert done.code == 0, done.err
    target = model.with_name("net.wide.onnx")
    before, after = (graphprune.analyze(graphprune.load(path)) for path in (model, target))
    assert [group.size for group in after.groups] == [2 * group.size for group in before.groups]
    for word in ("verified", "fixed", "graph output", str(target)):
        assert word in done.out
    again = quick("widen", model)
    assert again.code == 2
    assert "exists" in again.err


def test_for_machines(quick: Callable[..., Outcome], model: Path) -> None:
    done = quick("widen", model, "--factor", 1.5, "--noise", 0.1, "--dry-run", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["output"] is None
    assert said["flops"]["after"] > said["flops"]["before"]
    assert said["verification"]["error"] <= 1e-5
    assert all(group["after"] == round(1.5 * group["before"]) for group in said["groups"])
    assert not model.with_name("net.wide.onnx").exists()


def test_a_factor_below_one(quick: Callable[..., Outcome], model: Path) -> None:
    done = quick("widen", model, "--factor", 0.5)
    assert done.code == 2
    assert "factor" in done.err


def test_a_factor_that_is_too_small_for_a_single_copy(quick: Callable[..., Outcome], model: Path) -> None:
    done = quick("widen", model, "--factor", 1.01)
    assert done.code == 2
    assert "raise the --factor" in done.err
