# SPDX-License-Identifier: Apache-2.0
"""The table of rows: which there are, and how each is tried."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
import traceback
from pathlib import Path

from attacks import (
    rows_bounds,
    rows_budgets,
    rows_external,
    rows_files,
    rows_graphs,
    rows_numbers,
    rows_output,
    rows_plans,
    rows_training,
    rows_validity,
)
from attacks.bench import Bench, FailedError, Row, Trial
from attacks.journal import Journal

__all__ = ["COUNTS", "ROWS", "attack_rows", "ids"]

ROWS: tuple[Row, ...] = (
    *(*rows_files.ROWS, *rows_validity.ROWS, *rows_external.ROWS, *rows_numbers.ROWS, *rows_graphs.ROWS),
    *(*rows_budgets.ROWS, *rows_plans.ROWS, *rows_output.ROWS, *rows_bounds.ROWS, *rows_training.ROWS),
)
COUNTS = {"A": 14, "B": 22, "C": 16, "D": 12, "E": 24, "F": 10, "G": 11, "H": 15, "I": 6, "J": 6}
"""How many rows each letter has."""


def ids() -> list[str]:
    """Return the ids of all rows in order."""
    return [f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)]


def attack_rows(output: Path, seed: int, only: str = "") -> int:
    """Try all inputs that have not passed yet, or those of some rows again; return how many fail.

    Parameters
    ----------
    only : str
        Ids of rows, separated by commas; all if empty.
    """
    journal = Journal(output, "rows", seed)
    wanted = set(only.split(",")) if only else set(ids())
    passed = set() if only else {case for case, entry in journal.entries().items() if not entry["wrong"]}
    with tempfile.TemporaryDirectory(prefix="attack-rows-") as base:
        # The first input of each row, then the second: a run that is ended has tried as many rows as it could.
        rows = [row for row in ROWS if row.id in wanted]
        for turn in itertools.zip_longest(*(row.trials.items() for row in rows)):
            for row, chosen in zip(rows, turn, strict=True):
                if chosen is not None and (case := f"{row.id} {chosen[0]}") not in passed:
                    _attempt(journal, case, chosen[1], Path(base) / re.sub(r"\W+", "-", case)[:60])
    return journal.failing()


def _attempt(journal: Journal, case: str, trial: Trial, folder: Path) -> None:
    """Try one input, enter what came of it, and keep the folder of one that fails."""
    folder.mkdir()
    bench, wrong = Bench(folder), ""
    try:
        trial(bench)
        bench.audit()
    except FailedError as failure:
        wrong = str(failure)
    except Exception:  # a trial that cannot be made is no pass
        wrong = traceback.format_exc()
    endings = [done.ending for done in bench.runs]
    journal.add(
        case, wrong,
        code=[ending.code for ending in endings],
        seconds=round(sum(ending.processor_seconds for ending in endings), 2),
        clock=round(sum(ending.seconds for ending in endings), 2),
        peak=max((ending.peak for ending in endings), default=0),
    )  # fmt: skip
    if wrong:
        print(f"{case}: {wrong}", flush=True)
        kept = journal.path.parent / "failures" / folder.name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, symlinks=True, ignore=_special)
    for place in (folder, bench.scratch):
        shutil.rmtree(place, ignore_errors=True)


def _special(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied: pipes, and files too large to keep."""
    paths = [Path(folder) / name for name in names]
    return [path.name for path in paths if path.is_fifo() or (path.is_file() and path.stat().st_size > 1 << 24)]
