# SPDX-License-Identifier: Apache-2.0
"""The tests' properties, with other examples in every round, until so many were run.

A round runs every property that the tests have with ten times as many examples as there; the seed of a round is its
number. What is interrupted goes on with the property at which it was. Several processes work on one journal if each
begins with another round.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from attacks import counting
from attacks.fuzz import TESTS
from attacks.journal import Journal

__all__ = ["run_properties"]

_TIMES = 10


def run_properties(output: Path, seed: int, count: int, first: int = 0) -> int:
    """Run rounds, from the first one on, until so many examples held; return how many runs of a property failed."""
    journal = Journal(output, "properties", seed)
    files = [path for path in sorted(TESTS.rglob("test_*.py")) if "hypothesis" in path.read_text("utf-8")]
    while (held := sum(entry["held"] for entry in journal.entries().values())) < count:
        ended = journal.entries()
        number, path = next(
            (number, path)
            for number in itertools.count(first)
            for path in files
            if f"round {number} of {path.relative_to(TESTS)}" not in ended
        )
        _run_file(journal, path, number)
        print(f"round {number}, {path.relative_to(TESTS)}: {held} examples before", flush=True)
    return journal.failing()


def _run_file(journal: Journal, path: Path, number: int) -> None:
    """Run the properties of one file that this round has not had yet."""
    known = journal.entries().values()
    done = [entry["test"] for entry in known if entry["round"] == number and entry["test"] and not entry["wrong"]]
    with tempfile.TemporaryDirectory(prefix="attack-properties-") as folder:
        counts = Path(folder) / "counts.jsonl"
        counts.touch()
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            counting.COUNTS: str(counts),
            counting.TIMES: str(_TIMES),
            counting.SEED: str(journal.seed * 1000 + number),
            counting.DONE: json.dumps(done),
        }
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-n", "0", "-p", "attacks.counting"]
        command += ["-p", "no:cacheprovider", str(path)]
        with subprocess.Popen(command, cwd=TESTS.parent, env=environment, stdout=subprocess.PIPE, text=True) as child:
            said, seen = "", 0
            while child.poll() is None:
                try:
                    said += child.communicate(timeout=5)[0]
                except subprocess.TimeoutExpired:
                    seen = _note(journal, counts, seen, number)
            _note(journal, counts, seen, number)
    if child.returncode not in (0, 1, 5):  # passed, failed, nothing to run
        raise RuntimeError(f"{path}: pytest ended with {child.returncode}\n{said}")
    journal.add(f"round {number} of {path.relative_to(TESTS)}", "", round=number, test="", held=0)


def _note(journal: Journal, counts: Path, seen: int, number: int) -> int:
    """Enter the properties that were run since; return how many there are now."""
    lines = counts.read_text("utf-8").splitlines()
    for line in lines[seen:]:
        entry = {"held": 0, "rejected": 0, "failed": 0, **json.loads(line)}
        journal.add(f"{entry['test']} {number}", entry.pop("wrong"), round=number, **entry)
        if entry["failed"]:
            print(f"{entry['test']}\n{json.loads(line)['wrong']}", flush=True)
    return len(lines)
