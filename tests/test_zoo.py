# SPDX-License-Identifier: Apache-2.0
"""The tool that prunes a folder of models and checks every promise: what it prints, resumes and calls a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def zoo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "zoo.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_model_is_checked_recorded_and_written_up(tmp_path: Path) -> None:
    records, table = tmp_path / "records.jsonl", tmp_path / "coverage.md"
    arguments = (ROOT / "examples" / "digits.onnx", "--budgets", "0.5,0.000001", "--resume", records)
    done = zoo(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 models, 2 runs: 1 pruned and verified; 1 budgets out of reach, 0 FAILED" in done.stdout
    found = [json.loads(text) for text in records.read_text("utf-8").splitlines()]
    assert [record["status"] for record in found] == ["ok", "unreachable"]
    assert 0.45 < found[0]["ratio"] <= 0.5
    # A second run has nothing left to do; writing a section again replaces it.
    for title in ("first", "second", "first"):
        zoo(*arguments, "--markdown", table, "--title", title)
    assert len(records.read_text("utf-8").splitlines()) == 2
    text = table.read_text("utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## first", "## second"]
    assert text.count("| digits |") == 2


def test_a_file_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    done = zoo(tmp_path, "--budgets", "0.5")
    assert done.returncode == 1
    assert "FAILED at 0.5: analysis:" in done.stdout
