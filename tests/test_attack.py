# SPDX-License-Identifier: Apache-2.0
"""The attack knows every row, finds what it is there to find, and goes on where it was ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from source_tree import ROOT

TOOL = ROOT / "tools" / "attack.py"
BREAKS = {
    "foreign": "def fails(*_):\n    raise KeyError('here')",
    "endless": "def fails(*_):\n    while True:\n        pass",
    "memory": "def fails(*_):\n    import time\n    kept = bytearray(3 << 30)\n    time.sleep(9)",
}
posix = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the attack reads /proc")


def attack(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run the tool, with something broken first."""
    lines = [
        "import runpy, sys",
        f"sys.path.insert(0, {str(TOOL.parent)!r})",
        before,
        f"sys.argv = {[str(TOOL), *map(str, arguments)]!r}",
        "runpy.run_path(sys.argv[0], run_name='__main__')",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def journal(folder: Path, name: str) -> list[dict[str, object]]:
    """Return the entries of a journal."""
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def table() -> ModuleType:
    sys.path.insert(0, str(TOOL.parent))
    from attacks import table

    return table


def test_every_row_is_there_once_and_has_inputs(table: ModuleType) -> None:
    assert [row.id for row in table.ROWS] == table.ids()
    assert len(table.ROWS) == 136
    assert all(row.trials and row.given and row.must for row in table.ROWS)


@posix
def test_rows_are_tried_and_not_twice(tmp_path: Path) -> None:
    arguments = ("rows", "--only", "A2,G11", "--output", tmp_path)
    done = attack(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    entries = journal(tmp_path, "rows")
    assert [entry["case"] for entry in entries] == ["A2 empty", "G11 identity"]
    assert [entry["wrong"] for entry in entries] == ["", ""]
    assert [entry["code"] for entry in entries] == [[2], [0, 0]]


@posix
def test_an_input_that_ends_otherwise_is_reported(tmp_path: Path) -> None:
    before = "from attacks import rows_files as r\nr.Bench.refused = lambda *_, **__: r.check(False, 'as told')"
    done = attack("rows", "--only", "A2", "--output", tmp_path, before=before)
    assert done.returncode == 1
    assert "A2 empty: as told" in done.stdout
    assert [path.name for path in (tmp_path / "failures").iterdir()] == ["A2-empty"]


@posix
def test_fuzzed_models_are_the_same_each_time_and_go_on(tmp_path: Path) -> None:
    for count in (8, 16):
        done = attack("fuzz", "--seed", 5, "--count", count, "--output", tmp_path / "parts")
        assert done.returncode == 0, done.stdout + done.stderr
    attack("fuzz", "--seed", 5, "--count", 16, "--output", tmp_path / "whole")
    parts, whole = (
        [(entry["case"], entry["kind"], entry["code"]) for entry in journal(tmp_path / name, "fuzz")]
        for name in ("parts", "whole")
    )
    assert len(parts) == 16
    assert parts == whole


@posix
@pytest.mark.parametrize("how", BREAKS)
def test_a_foreign_exception_and_exceeded_limits_are_found_and_kept(tmp_path: Path, how: str) -> None:
    lines = [
        *("from attacks import fuzz, processes", "from graphprune import api", BREAKS[how], "api.analyze = fails"),
        f"fuzz.CASE_LIMITS = processes.Limits({1 if how == 'endless' else 60}, 100, 1 << 30)",
        "fuzz.KINDS = ('semantic',)",
    ]
    done = attack("fuzz", "--count", 3, "--output", tmp_path, before="\n".join(lines))
    assert done.returncode == 1
    said = {"foreign": "exit code 101", "endless": "exceeded its processor", "memory": "exceeded its memory"}[how]
    assert re.search(rf"fuzz \d \(semantic\): {said}", done.stdout), done.stdout + done.stderr
    assert list((tmp_path / "failures").glob("fuzz-0-*.onnx"))


PROPERTIES = """
from hypothesis import assume, given, settings
from hypothesis import strategies as st

@settings(max_examples=5)
@given(st.integers(0, 10**9))
def test_holds(number: int) -> None:
    assume(number % 2)

@settings(max_examples=5)
@given(st.integers(0, 10**9))
def test_fails(number: int) -> None:
    assert number < 10

def test_is_no_property() -> None:
    raise AssertionError
"""


@posix
def test_examples_are_counted_honestly(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_two.py").write_text(PROPERTIES)
    place = str(tmp_path / "tests")
    before = f"from attacks import properties\nproperties.TESTS = properties.Path({place!r})"
    done = attack("properties", "--count", 20, "--output", tmp_path / "out", before=before)
    assert done.returncode == 1, done.stdout + done.stderr
    entries = {str(entry["test"]).partition("::")[2]: entry for entry in journal(tmp_path / "out", "properties")}
    assert entries["test_holds"]["held"] == 50
    assert entries["test_holds"]["wrong"] == ""
    assert entries["test_fails"]["failed"]
    assert "assert number < 10" in str(entries["test_fails"]["wrong"])
    assert "test_is_no_property" not in entries
