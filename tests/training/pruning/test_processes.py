# SPDX-License-Identifier: Apache-2.0
"""Several processes prune as one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from forked_runs import rendezvous, start
from onnx import numpy_helper
from training_runs import pruning


def test_two_processes_equal_one(tmp_path: Path) -> None:
    shared = rendezvous()
    single = start(tmp_path, pruning, tmp_path / "one.onnx")
    pair = [
        start(tmp_path, pruning, tmp_path / "two.onnx", RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")
    ]
    for run in (single, *pair):
        assert run.ended() == 0, run.printed()
    one, two = (onnx.load(tmp_path / name).graph.initializer for name in ("one.onnx", "two.onnx"))
    for a, b in zip(one, two, strict=True):
        first, second = numpy_helper.to_array(a), numpy_helper.to_array(b)
        assert np.abs(first - second).max() < 1e-3 * max(1.0, np.abs(first).max()), a.name
