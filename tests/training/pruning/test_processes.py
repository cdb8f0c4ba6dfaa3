# SPDX-License-Identifier: Apache-2.0
"""Several processes prune as one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from child_processes import ended, start, two_ranks
from onnx import numpy_helper
from process_cases import train_run

CHILD = """
import sys
from pathlib import Path
from process_cases import train_run
train_run(Path(sys.argv[1]))
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    pair = [start(CHILD, tmp_path / "two.onnx", **rank) for rank in two_ranks()]
    train_run(tmp_path / "one.onnx")
    assert [ended(process) for process in pair] == [0, 0]
    one, two = (onnx.load(tmp_path / name).graph.initializer for name in ("one.onnx", "two.onnx"))
    for a, b in zip(one, two, strict=True):
        first, second = numpy_helper.to_array(a), numpy_helper.to_array(b)
        assert np.abs(first - second).max() < 1e-3 * max(1.0, np.abs(first).max()), a.name
