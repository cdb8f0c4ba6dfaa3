# SPDX-License-Identifier: Apache-2.0
"""A journal of results: one JSON object a line, so that a run that was ended goes on where it was."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Journal", "machine"]

Entry = dict[str, Any]


class Journal:
    """The results of one kind of attack with one seed.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    name : str
        Of the attack; the file is ``<name>.jsonl``.
    seed : int
        Entries with other seeds are kept, and not seen.
    """

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.seed = folder / f"{name}.jsonl", seed
        self.path.touch()
        whole = self.path.read_bytes()
        if whole and not whole.endswith(b"\n"):  # ended in the middle of a line
            self.path.write_bytes(whole[: whole.rfind(b"\n") + 1])

    def entries(self) -> dict[str, Entry]:
        """Return the last entry of each case of this seed."""
        lines = map(json.loads, self.path.read_text("utf-8").splitlines())
        return {entry["case"]: entry for entry in lines if entry["seed"] == self.seed}

    def open_cases(self, count: int) -> list[int]:
        """Return which of so many numbered cases have no entry yet, or one that fails."""
        known = self.entries()
        return [number for number in range(count) if known.get(str(number), {"wrong": "not run"})["wrong"]]

    def failing(self) -> int:
        """Return how many cases fail."""
        return sum(bool(entry["wrong"]) for entry in self.entries().values())

    def add(self, case: str, wrong: str, **entry: Any) -> Entry:
        """Append an entry at once: the case, what is wrong (nothing, if that is empty), and what else is known."""
        entry = {
            "case": case,
            "wrong": wrong,
            **entry,
            "seed": self.seed,
            "when": time.strftime("%Y-%m-%d", time.gmtime()),
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return entry


def machine() -> Entry:
    """Return what kind of machine this is: cores, memory, instruction set."""
    flags = next(
        (line.split() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Feat"))),
        [],
    )
    widest = next((name for name in ("avx512f", "avx2", "avx", "asimd") if name in flags), "unknown")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "processor": f"{platform.machine()}, {widest}",
        "system": f"{platform.system()}, Python {platform.python_version()}",
    }
