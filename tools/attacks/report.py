# SPDX-License-Identifier: Apache-2.0
"""Writes what the journals hold: ``results.json`` beside them, and the figures of docs/reliability.md."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from attacks.fuzz import KINDS
from attacks.journal import Entry, Journal, machine
from attacks.table import ROWS, ids

__all__ = ["PAGE", "write_report"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
START, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_NAMES = ("rows", "fuzz", "kills", "mutants", "properties")
_MIB = 1 << 20


def write_report(output: Path, seed: int) -> int:
    """Write both; return 1 if anything fails.

    Parameters
    ----------
    output : Path
        The folder of the journals.
    """
    journals = {name: Journal(output, name, seed).entries() for name in _NAMES}
    failing = {name: [case for case, entry in found.items() if entry["wrong"]] for name, found in journals.items()}
    where = {**machine(), "seed": seed, "commit": _commit()}
    whole = {
        "machine": where,
        "failing": failing,
        "cases": {name: list(each.values()) for name, each in journals.items()},
    }
    (output / "results.json").write_text(json.dumps(whole, indent=1), "utf-8")
    text = PAGE.read_text("utf-8")
    before, after = text.partition(START)[0], text.partition(END)[2]
    figures = "\n\n".join([_summary(journals, where), _table(journals["rows"]), *_details(journals)])
    PAGE.write_text(f"{before}{START}\n\n{figures}\n\n{END}{after}", "utf-8")
    print(f"{PAGE.name} and {output / 'results.json'} are written; failing: {failing}")
    return 1 if any(failing.values()) else 0


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(PAGE.parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _of(cases: dict[str, Entry], row: str) -> list[Entry]:
    return [entry for case, entry in cases.items() if case.split(" ", 1)[0] == row]


def _passed(entries: list[Entry]) -> int:
    return sum(not entry["wrong"] for entry in entries)


def _summary(journals: dict[str, dict[str, Entry]], where: dict[str, Any]) -> str:
    """Return what was run, when and where, and one line per attack."""
    rows, all_ids = journals["rows"], ids()
    tried = [row for row in all_ids if _of(rows, row)]
    clean = [row for row in tried if _passed(_of(rows, row)) == len(_of(rows, row))]
    days = sorted({entry["when"] for found in journals.values() for entry in found.values()}) or ["never"]
    fuzzed, kills = list(journals["fuzz"].values()), list(journals["kills"].values())
    mutants, examples = list(journals["mutants"].values()), list(journals["properties"].values())
    held = sum(entry["held"] for entry in examples)
    lines = [
        f"`python tools/attack.py all --seed {where['seed']} --output attack/`, {days[0]} to {days[-1]},"
        f" at {where['commit']}, on"
        f" {where['cores']} cores, {where['memory_gib']} GiB, {where['processor']}; {where['system']}.",
        "",
        "| attack | tried | passed |",
        "|---|---|---|",
        f"| rows | {len(tried)} of {len(all_ids)}, {len(rows)} inputs | {len(clean)} rows,"
        f" {_passed(list(rows.values()))} inputs |",
        f"| fuzzed models | {len(fuzzed)} | {_passed(fuzzed)} |",
        f"| kills | {sum(entry['killed'] for entry in kills)} of {len(kills)} runs | {_passed(kills)} |",
        f"| mutants | {len(mutants)} | {_passed(mutants)} caught |",
        f"| property examples | {held} | {held - sum(entry.get('failed', 0) for entry in examples)} |",
    ]
    return "\n".join(lines)


def _table(rows: dict[str, Entry]) -> str:
    """Return the table of rows."""
    lines = [
        "## Rows",
        "",
        "| | input | has to come of it | inputs passed | exit codes | s | MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        entries = _of(rows, row.id)
        passed = f"{_passed(entries)}/{len(row.trials)}" if entries else "not tried"
        mark = "" if not entries or _passed(entries) == len(row.trials) else " **fails**"
        codes = " ".join(map(str, sorted({code for entry in entries for code in entry["code"]})))
        seconds = max((entry["seconds"] for entry in entries), default=0.0)
        peak = max((entry["peak"] for entry in entries), default=0) // _MIB
        lines.append(f"| {row.id} | {row.given} | {row.must} | {passed}{mark} | {codes} | {seconds:.1f} | {peak} |")
    lines += ["", "Seconds of processor time and memory of all processes of a run: the most of any input of the row."]
    return "\n".join([*lines, *_failing("rows", rows)])


def _details(journals: dict[str, dict[str, Entry]]) -> list[str]:
    """Return the sections of the other attacks."""
    return [
        _fuzz(journals["fuzz"]),
        _kills(journals["kills"]),
        _mutants(journals["mutants"]),
        _properties(journals["properties"]),
    ]


def _fuzz(cases: dict[str, Entry]) -> str:
    lines = [
        "## Fuzzed models",
        "",
        "| changed | models | done (0) | cannot be met (1) | refused (2) | failing | longest, s | most, MiB |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for kind in dict.fromkeys(KINDS):
        entries = [entry for entry in cases.values() if entry["kind"] == kind]
        codes = Counter(entry["code"] for entry in entries if not entry["wrong"])
        most = [max((entry[name] for entry in entries), default=0) for name in ("seconds", "peak")]
        numbers = [len(entries), *(codes[code] for code in (0, 1, 2)), len(entries) - _passed(entries)]
        lines.append(f"| {kind} | {' | '.join(map(str, numbers))} | {most[0]:.1f} | {most[1] // _MIB} |")
    again = sum(bool(entry["again"]) for entry in cases.values())
    lines += ["", f"{again} of them were run by a new interpreter as well, and ended alike."]
    return "\n".join([*lines, *_failing("models", cases)])


def _kills(cases: dict[str, Entry]) -> str:
    lines = [
        "## Kills",
        "",
        "| command | runs | killed | old files | new files | model new, plan old | failing |",
        "|---|---|---|---|---|---|---|",
    ]
    for scene in dict.fromkeys(entry["scene"] for entry in cases.values()):
        entries = [entry for entry in cases.values() if entry["scene"] == scene]
        states = Counter(entry["state"] for entry in entries)
        numbers = [
            len(entries),
            sum(entry["killed"] for entry in entries),
            *(states[each] for each in ("old", "new", "mixed")),
        ]
        lines.append(f"| `{scene}` | {' | '.join(map(str, numbers))} | {len(entries) - _passed(entries)} |")
    return "\n".join([*lines, *_failing("kills", cases)])


def _mutants(cases: dict[str, Entry]) -> str:
    lines = ["## Mutants", "", "| kind | mutants | caught |", "|---|---|---|"]
    for kind in ("cut", "file: weight at random", "file: field at random", "file"):
        known = ("file: weight", "file: field")
        names = [case for case in cases if case.startswith(kind) and (kind != "file" or not case.startswith(known))]
        lines.append(f"| {kind} | {len(names)} | {_passed([cases[name] for name in names])} |")
    return "\n".join([*lines, *_failing("mutants", cases)])


def _properties(cases: dict[str, Entry]) -> str:
    lines = [
        "## Properties",
        "",
        "| tests | properties | examples that held | rejected | failing |",
        "|---|---|---|---|---|",
    ]
    entries = [entry for entry in cases.values() if entry["test"]]
    for file in sorted({entry["test"].partition("::")[0] for entry in entries}):
        own = [entry for entry in entries if entry["test"].startswith(f"{file}::")]
        names, failing = {entry["test"] for entry in own}, sum(bool(entry["wrong"]) for entry in own)
        held, rejected = (sum(entry[name] for entry in own) for name in ("held", "rejected"))
        lines.append(f"| `{file}` | {len(names)} | {held} | {rejected} | {failing} |")
    return "\n".join(lines)


def _failing(what: str, cases: dict[str, Entry]) -> list[str]:
    """Return what fails, first words only."""
    wrong = {case: entry["wrong"] for case, entry in cases.items() if entry["wrong"]}
    if not wrong:
        return []
    listed = [f"- {case}: {' '.join(said.split())[:160]}".replace("|", "/") for case, said in wrong.items()]
    return ["", f"Failing {what}:", "", *listed]
