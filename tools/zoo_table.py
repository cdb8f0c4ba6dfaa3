# SPDX-License-Identifier: Apache-2.0
"""The records of a zoo as tables: lines for the terminal, a section for a Markdown file."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from zoo_check import Record

Rows = Sequence[Sequence[Record]]

_PACKAGES = ("graphprune", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "scipy")
_INTRODUCTION = """# Coverage

Models that graphprune was run on, and what came out. Made by `tools/zoo.py`, which checks for every model and budget
that the written file passes ONNX's full check; differs from the original only as the plan explains; runs in
onnxruntime with default optimisation as the original does, also at batch 2 where the batch is dynamic; costs exactly
the FLOPs that the plan predicts (and its parameters, but for a few scalars that follow a head's size), and no more
FLOPs than the budget; leaves no group whose next aligned width would still fit; and equals the masked original in all
common tensors.

*Prunable* is the share of the FLOPs in layers that can lose channels, *reach* the share that is left at the narrowest
widths. A cell gives the share of the FLOPs that was kept; the largest error of any tensor, relative to its largest
value; and the seconds for reading, analysing, solving, cutting and writing, verification apart.
"""


def heading(budgets: Iterable[float]) -> str:
    """Return the head of the terminal table."""
    cells = "".join(f"  {f'FLOPs {budget:g}':<23}" for budget in budgets)
    return f"{'model':40} {'MACs':>9} {'prunable':>8} {'reach':>6}{cells}"


def line(records: Sequence[Record]) -> str:
    """Return the line of one model."""
    first = records[0]
    cells = "".join(f"  {_cell(record):<23}" for record in records)
    return f"{first.name[:40]:40} {macs(first.macs):>9} {first.prunable:8.1%} {first.reach:6.3f}{cells}".rstrip()


def macs(count: int) -> str:
    """Return a number of multiply-adds with a unit."""
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.2f} M"


def summary(rows: Rows) -> str:
    """Return how many runs there were and how they ended."""
    records = [record for row in rows for record in row]
    by_status = {status: [entry for entry in records if entry.status == status] for status in ("ok", "unreachable")}
    done, failed = by_status["ok"], [record for record in records if record.failures]
    parts = [f"{len(rows)} models, {len(records)} runs: {len(done)} pruned and verified"]
    parts.append(f"{len(by_status['unreachable'])} budgets out of reach, {len(failed)} FAILED")
    vacuous = sum(record.verdict == "vacuous" for record in done)
    if vacuous:
        parts.append(f"{vacuous} of them where masking does not move the outputs, so that equality proves little")
    if done:
        seconds = statistics.median(record.seconds for record in done)
        parts.append(f"largest error {max(record.error for record in done):.1e}, median {seconds:.2f} s")
    return "; ".join(parts)


def write_section(file: Path, title: str, rows: Rows, budgets: Sequence[float], remark: str = "") -> None:
    """Replace or append the section with a title in a Markdown file; a remark follows the machine."""
    text = file.read_text("utf-8") if file.exists() else _INTRODUCTION
    section = f"## {title}\n\n" + "\n".join(_section(rows, budgets, remark)) + "\n"
    old = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if not old.search(text):
        text = text.rstrip("\n") + f"\n\n## {title}\n"
    text = old.sub(lambda _: section + "\n", text)
    file.write_text(text.rstrip("\n") + "\n", "utf-8")


def _cell(record: Record) -> str:
    if record.failures:
        return "FAILED"
    if record.status == "unreachable":
        return f"unreachable ({record.reach:.3f})"
    mark = "*" if record.relaxed else ""
    return f"{record.ratio:.4f}{mark} {record.error:.0e} {record.seconds:.1f}s"


def _section(rows: Rows, budgets: Sequence[float], remark: str) -> Iterable[str]:
    """Lines of a section: what was run where, a summary, the table, notes."""
    arguments = f"--budgets {','.join(f'{budget:g}' for budget in budgets)}"
    yield f"`python tools/zoo.py FOLDER {arguments}`, {datetime.datetime.now(tz=datetime.UTC).date()}, seed 0,"
    yield f"{machine()}; {versions()}. {remark}".rstrip()
    yield ""
    yield f"{summary(rows)}."
    yield ""
    yield "| model | MACs | prunable | reach |" + "".join(f" FLOPs {budget:g} |" for budget in budgets)
    yield "|---|--:|--:|--:|" + "---|" * len(budgets)
    for row in rows:
        first = row[0]
        cells = "".join(f" {_cell(record)} |" for record in row)
        yield f"| {first.name} | {macs(first.macs)} | {first.prunable:.1%} | {first.reach:.3f} |{cells}"
    notes = [f"- {record.name} at {record.budget:g}: {note}" for row in rows for record in row for note in record.notes]
    if any(record.relaxed and not record.failures for row in rows for record in row):
        yield ""
        yield "\\* with some unaligned narrow widths, since aligned ones do not reach the budget."
    if notes:
        yield ""
        yield "Notes:"
        yield ""
        yield from notes


def machine() -> str:
    """Return the processor and the version of Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [entry.partition(":")[2].strip() for entry in lines if entry.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of an {model}, Python {platform.python_version()}"


def versions() -> str:
    """Return the versions of the packages that matter."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
