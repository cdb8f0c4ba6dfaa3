# SPDX-License-Identifier: Apache-2.0
"""The fuzzer of models runs, draws the same examples each time, and finds what it is there to find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parent.parent.parent / "tools" / "fuzz_models.py"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_examples_end_in_results_or_in_errors_of_ours() -> None:
    done = _run("--examples", "40", "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 examples, seed 5: 0 bad" in done.stdout
    assert done.stdout.splitlines()[:-1] == _run("--examples", "40", "--seed", "5").stdout.splitlines()[:-1]


def test_a_foreign_exception_and_its_model_are_kept(tmp_path: Path) -> None:
    arguments = [str(TOOL), "--examples", "6", "--kinds", "semantic", "--keep", str(tmp_path / "kept")]
    lines = [
        "import runpy, sys, graphprune.api",
        "def fails(*_):",
        "    raise KeyError('here')",
        "graphprune.api.analyze = fails",
        f"sys.argv = {arguments!r}",
        f"sys.path.insert(0, {str(TOOL.parent)!r})",
        "runpy.run_path(sys.argv[0], run_name='__main__')",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "foreign: KeyError: 'here'" in done.stdout
    assert list((tmp_path / "kept").glob("0-*.onnx"))
