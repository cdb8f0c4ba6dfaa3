# SPDX-License-Identifier: Apache-2.0
"""What may take any time and memory runs in a child with limits before this process runs it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from endless_models import doubling, endless
from tiny_models import chain, model

from graphprune import api
from graphprune.errors import UnsafeModelError
from graphprune.model.children.bounded import unbounded_operators
from graphprune.model.load import load
from graphprune.recovery.without_data import automatic_restorer
from graphprune.verification import trial

limited = pytest.mark.skipif(sys.platform != "linux", reason="only there the system enforces the limits")


@limited
def test_recovery_without_data_does_not_run_what_never_ends() -> None:
    with pytest.raises(UnsafeModelError, match="still running after"):
        automatic_restorer(api.analyze(load(endless())))


@limited
def test_nor_is_its_latency_measured() -> None:
    with pytest.raises(UnsafeModelError, match="still running after"):
        api.solve(load(endless()), latency=0.5)


def test_ordinary_networks_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "observe", lambda *_: pytest.fail("a child was started for nothing"))
    trial.try_in_child(api.analyze(load(chain("m = Relu (h)"))))


def test_operators_that_shapes_do_not_bound_are_named() -> None:
    assert unbounded_operators(endless()) == ["Loop"]
    assert unbounded_operators(doubling(2)) == ["StringConcat"]
    assert unbounded_operators(chain("m = com.microsoft.Gelu (h)", domains=', "com.microsoft": 1')) == ["Gelu"]
    nested = model(
        """(float[1,3,6,6] x) => (float[1,8,6,6] y) {
            h = Conv (x, first)
            y = If (yes) <
                then_branch = one () => (float[1,8,6,6] a) { a = GridSample (h, grid) },
                else_branch = other () => (float[1,8,6,6] b) { b = Relu (h) }
            >
        }""",
        {"first": (8, 3, 1, 1), "grid": (1, 6, 6, 2)},
        yes=np.asarray(True),
    )
    assert unbounded_operators(nested) == ["GridSample"]
