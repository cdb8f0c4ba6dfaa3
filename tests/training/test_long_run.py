# SPDX-License-Identifier: Apache-2.0
"""A long run goes on where it was killed, is divided among processes, and refuses what somebody damaged."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from forked_runs import rendezvous, start
from onnx import numpy_helper
from training_runs import NEVER, STEPS, finetuning


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what a single process writes that nobody interrupts."""
    place = tmp_path_factory.mktemp("whole")
    run = start(place, finetuning, place)
    assert run.ended() == 0, run.printed()
    return place / "out.onnx"


def test_a_killed_run_that_is_resumed_ends_with_the_same_weights(whole: Path, tmp_path: Path) -> None:
    at = int(np.random.default_rng().integers(5, STEPS + 1))
    assert start(tmp_path, finetuning, tmp_path, at).ended() == -signal.SIGKILL
    assert not (tmp_path / "out.onnx").exists()
    again = start(tmp_path, finetuning, tmp_path, NEVER, True)
    assert again.ended() == 0, again.printed()
    assert (tmp_path / "out.onnx").read_bytes() == whole.read_bytes(), f"killed at step {at}"


def test_two_processes_equal_one(whole: Path, tmp_path: Path) -> None:
    shared = rendezvous()
    pair = [start(tmp_path, finetuning, tmp_path, RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]
    for run in pair:
        assert run.ended() == 0, run.printed()
    one, two = (onnx.load(path).graph.initializer for path in (whole, tmp_path / "out.onnx"))
    for a, b in zip(one, two, strict=True):
        first, second = numpy_helper.to_array(a), numpy_helper.to_array(b)
        if first.dtype == np.float32:
            assert np.abs(first - second).max() < 1e-4 * max(1.0, np.abs(first).max()), a.name
