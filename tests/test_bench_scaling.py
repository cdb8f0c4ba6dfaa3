# SPDX-License-Identifier: Apache-2.0
"""The scaling benchmark runs, and its synthetic graphs are pruned where they should be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_sweep_prints_a_line_per_graph_and_its_exponents() -> None:
    command = [sys.executable, str(ROOT / "tools" / "bench_scaling.py"), "shuffle", "--largest", "0.02"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0] == "shuffle"
    assert [line.split()[:3] for line in lines[2:7]][-1] == ["244", "1344", "25"]
    assert lines[-1].startswith("exponents: cpu")
