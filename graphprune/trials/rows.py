# SPDX-License-Identifier: Apache-2.0
"""The table of a sweep: one row per solver, criterion and budget, as CSV, and which rows are on the Pareto front."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from graphprune.errors import UsageError, quote
from graphprune.report.trials import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["COLUMNS", "Key", "dumps", "front", "key_of", "read_rows"]

COLUMNS = (
    "solver",
    "criterion",
    "budget",
    "metric",
    "cost",
    "full_cost",
    "flops",
    "full_flops",
    "params",
    "full_params",
    "kept_saliency",
    "bound",
    "gap",
    "latency",
    "full_latency",
    "latency_ratio",
    "accuracy",
    "full_accuracy",
    "agreement",
    "seconds",
    "front",
    "widths",
    "note",
    "request",
)
_MOST_BYTES = 64 * 2**20

Key = tuple[str, str, str]


def key_of(trial: Trial) -> Key:
    """Return what tells trials of one sweep apart: solver, criterion, budget."""
    return trial.solver, trial.criterion, trial.budget


def front(trials: Sequence[Trial]) -> set[Key]:
    """Return the trials on the Pareto front: no other costs less and is as good, or is better at no higher cost.

    Good is what has the highest accuracy or agreement, if that was measured, and else what keeps most saliency. As the
    scores of different criteria cannot be compared, each criterion then has a front of its own.

    Complexity: O(n log n).
    """
    keys: set[Key] = set()
    done = [trial for trial in trials if not trial.note]
    measured = all(trial.accuracy or trial.agreement is not None for trial in done)
    for criterion in {"" if measured else trial.criterion for trial in done}:
        best = -1.0
        own = [trial for trial in done if measured or trial.criterion == criterion]
        for trial in sorted(own, key=lambda trial: (trial.cost[1], -trial.quality)):
            if trial.quality > best:
                keys.add(key_of(trial))
                best = trial.quality
    return keys


def dumps(trials: Sequence[Trial], request: str) -> str:
    """Return trials as CSV; `request` names model and options in every row."""
    on_front = front(trials)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        writer.writerow({**_record(trial), "front": int(key_of(trial) in on_front), "request": request})
    return stream.getvalue()


def read_rows(path: Path, request: str | None = None) -> list[Trial]:
    """Return the trials that an earlier run has left, none if there is no file.

    Parameters
    ----------
    path : Path
    request : str, optional
        Digest of the model and the options that the table must be of; by default it may be of any.

    Raises
    ------
    UsageError
        If the file is no table of a sweep, or one of another model or other options.
    """
    if not path.exists():
        return []
    name = quote(str(path))
    hint = "give another place with -o, or --force to start anew"
    try:
        with path.open("r", encoding="utf-8", newline="") as stream:
            text = stream.read(_MOST_BYTES)
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        if text.split("\n", 1)[0] != ",".join(COLUMNS):
            raise UsageError(f"{name} is not a table that a sweep has written", hint=hint)
        if request is not None and any(row["request"] != request for row in rows):
            raise UsageError(f"{name} is the table of another model or of other options", hint=hint)
        return [_trial(row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{name} cannot be read as the table of a sweep: {error}", hint=hint) from None


def _record(trial: Trial) -> dict[str, object]:
    """Return what a trial has in each column; what is not known stays empty."""
    known: dict[str, object] = {
        "solver": trial.solver,
        "criterion": trial.criterion,
        "budget": trial.budget,
        "metric": trial.metric,
        "note": trial.note,
        "seconds": f"{trial.seconds:.4f}",
    }
    if trial.note:
        return known
    for name, (before, after) in {"cost": trial.cost, "flops": trial.flops, "params": trial.params}.items():
        known |= {name: str(after), f"full_{name}": str(before)}
    if trial.latency:
        known |= dict(zip(("full_latency", "latency", "latency_ratio"), map(repr, trial.latency), strict=True))
    if trial.accuracy:
        known |= dict(zip(("full_accuracy", "accuracy"), map(repr, trial.accuracy), strict=True))
    if trial.agreement is not None:
        known["agreement"] = repr(trial.agreement)
    if trial.bound is not None:
        known |= {"bound": repr(trial.bound), "gap": repr(trial.gap)}
    widths = " ".join(f"{kept}/{size}" for kept, size in trial.widths)
    return {**known, "kept_saliency": repr(trial.kept), "widths": widths}


def _trial(row: Mapping[str, str]) -> Trial:
    """Return the trial of a row."""
    trial = Trial(row["solver"], row["criterion"], row["budget"], row["metric"], seconds=float(row["seconds"]))
    if row["note"]:
        return replace(trial, note=row["note"])
    latency = (row["full_latency"], row["latency"], row["latency_ratio"])
    return replace(
        trial,
        cost=(int(row["full_cost"]), int(row["cost"])),
        flops=(int(row["full_flops"]), int(row["flops"])),
        params=(int(row["full_params"]), int(row["params"])),
        widths=tuple(_pair(text) for text in row["widths"].split()),
        kept=float(row["kept_saliency"]),
        bound=float(row["bound"]) if row["bound"] else None,
        accuracy=(float(row["full_accuracy"]), float(row["accuracy"])) if row["accuracy"] else None,
        agreement=float(row["agreement"]) if row["agreement"] else None,
        latency=(float(latency[0]), float(latency[1]), float(latency[2])) if latency[0] else None,
    )


def _pair(text: str) -> tuple[int, int]:
    kept, _, size = text.partition("/")
    return int(kept), int(size)
