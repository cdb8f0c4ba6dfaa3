# SPDX-License-Identifier: Apache-2.0
"""The records of `tools/solvers_table.py` as a page: what holds, how well solvers do, and how long they take."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo_table import machine, versions

_INTRODUCTION = """# Solvers

Every registered solver with every criterion under every kind of budget. Made by `tools/solvers_table.py`, which checks
for each plan that every budget holds, that no group could take its next level within all of them, that what is counted
on the pruned model is what the plan predicts, and that the pruned model equals the masked original in onnxruntime. A
budget counts as out of reach only where the narrowest allowed widths cost more.

*Kept* is the saliency that stays, as a share of the most that any solver here keeps for the same model, criterion and
budget: 100 % is the best of the row. *Used* is how much of the tightest budget is used. *CPU s* is for solving alone.
Figures are medians, *worst* the least.
"""


@dataclass
class Record:
    """What one solver, criterion and budget gave on one model; `status` is "ok", "unreachable" or "failed"."""

    model: str
    solver: str
    criterion: str
    budget: str
    status: str = "ok"
    failures: list[str] = field(default_factory=list)
    kept: float = 0.0
    used: float = 0.0
    gap: float | None = None
    seconds: float = 0.0
    verdict: str = ""
    error: float = 0.0
    effect: float = 0.0

    @property
    def key(self) -> tuple[str, ...]:
        """What tells records apart."""
        return self.model, self.solver, self.criterion, self.budget

    def fail(self, message: str) -> None:
        """Note what is wrong."""
        self.status = "failed"
        self.failures.append(message[:400])

    def line(self) -> str:
        """Return the record as a line for the terminal."""
        head = f"{self.model[:32]:32} {self.budget:24} {self.criterion:10} {self.solver:10}"
        if self.failures:
            return f"{head} FAILED: {'; '.join(self.failures)}"
        if self.status == "unreachable":
            return f"{head} out of reach"
        return f"{head} kept {self.kept:.4f} used {self.used:.4f} {self.seconds:7.2f} s {self.verdict} {self.error:.0e}"


def summary(records: Sequence[Record]) -> str:
    """Return how many there were and how they ended."""
    ended = {status: sum(record.status == status for record in records) for status in ("ok", "unreachable", "failed")}
    verified = sum(record.verdict == "verified" for record in records)
    error = max((record.error for record in records), default=0.0)
    models = len({record.model for record in records})
    return (
        f"{models} models, {len(records)} runs: {ended['ok']} within budget and maximal, {verified} of them verified "
        f"(largest error {error:.1e}), {ended['unreachable']} out of reach, {ended['failed']} FAILED"
    )


def write_page(file: Path, records: Sequence[Record], budgets: str, seed: int) -> None:
    """Write the page anew."""
    lines = [
        _INTRODUCTION,
        f"`python tools/solvers_table.py MODEL... --budgets {budgets} --seed {seed}`,",
        f"{datetime.datetime.now(tz=datetime.UTC).date()}, one thread on {machine()}; {versions()}.",
        "",
        f"{summary(records)}.",
        "",
        "## Solvers",
        "",
        *_quality(records, "budget", lambda record: record.budget),
        "",
        "## Solvers by criterion",
        "",
        *_quality(records, "criterion", lambda record: record.criterion),
        "",
        "## Models",
        "",
        *_models(records),
    ]
    failures = [f"- {record.line()}" for record in records if record.failures]
    if failures:
        lines += ["", "## Failures", "", *failures]
    file.write_text("\n".join(lines) + "\n", "utf-8")


def _quality(records: Sequence[Record], name: str, kind: Callable[[Record], str]) -> Iterable[str]:
    """Lines of a table with a row per kind and solver."""
    yield f"| {name} | solver | kept | worst | used | CPU s | largest CPU s | runs |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    relative = _relative(records)
    good = [record for record in records if record.status == "ok"]
    for value in dict.fromkeys(map(kind, good)):
        for solver in sorted({record.solver for record in good}):
            own = [record for record in good if kind(record) == value and record.solver == solver]
            if own:
                kept = [relative[record.key] for record in own]
                seconds = [record.seconds for record in own]
                used = statistics.median(record.used for record in own)
                yield (
                    f"| {value} | {solver} | {statistics.median(kept):.1%} | {min(kept):.1%} | {used:.1%} "
                    f"| {statistics.median(seconds):.2f} | {max(seconds):.2f} | {len(own)} |"
                )


def _relative(records: Sequence[Record]) -> dict[tuple[str, ...], float]:
    """Return the saliency that each record keeps relative to the best of its model, criterion and budget."""
    best: dict[tuple[str, ...], float] = {}
    for record in records:
        place = record.model, record.criterion, record.budget
        best[place] = max(best.get(place, 0.0), record.kept)
    return {
        record.key: record.kept / most if (most := best[record.model, record.criterion, record.budget]) else 1.0
        for record in records
    }


def _models(records: Sequence[Record]) -> Iterable[str]:
    yield "| model | runs | within budget | maximal | verified | proves little | out of reach | largest error |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for model in dict.fromkeys(record.model for record in records):
        own = [record for record in records if record.model == model]
        plans = [record for record in own if record.verdict]
        over = sum(any("over budget" in text for text in record.failures) for record in plans)
        short = sum(any("could be" in text for text in record.failures) for record in plans)
        counts = [sum(record.verdict == verdict for record in plans) for verdict in ("verified", "vacuous")]
        reach = sum(record.status == "unreachable" for record in own)
        error = max((record.error for record in plans), default=0.0)
        yield (
            f"| {model} | {len(own)} | {len(plans) - over} | {len(plans) - short} | {counts[0]} | {counts[1]} "
            f"| {reach} | {error:.0e} |"
        )
