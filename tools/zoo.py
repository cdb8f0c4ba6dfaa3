# SPDX-License-Identifier: Apache-2.0
"""Prune every model of a folder to several budgets, check every promise on each, and print the table.

::

    python tools/zoo.py ~/zoo
    python tools/zoo.py ~/zoo --inputs manifest.json --resume zoo.jsonl --markdown docs/coverage.md --title torchvision

Each model runs in a process of its own (`zoo_check.py`), one at a time, within a time limit. Several run at a time
with `--jobs`, or on a cluster with `--backend` and `--address`, whose machines have to see the models and this folder
at the same place. What is checked: the written file passes ONNX's full check, differs from the original only as the
plan explains, and runs in onnxruntime as the original does, also at batch 2 where the batch is dynamic; FLOPs,
parameters and bytes counted on it are those that the plan predicted, and within the budget; no group could take its
next level within the budget; and the file equals the masked original. An unreachable budget counts as fine if it is
below the reach, the share of the FLOPs at the narrowest widths. The exit status is 1 if any run failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_args

from zoo_check import Record
from zoo_table import heading, line, summary, write_section

from graphprune import Workers
from graphprune.choices import Backend

CHECK = Path(__file__).with_name("zoo_check.py")


@dataclass(frozen=True)
class Settings:
    """What holds for all models."""

    budgets: tuple[float, ...]
    shapes: dict[str, dict[str, list[int]]]
    limit: float


def find_models(paths: Iterable[Path]) -> list[Path]:
    """Return the files named, and those of the folders named in order of their names."""
    found = []
    for path in paths:
        found += sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    return found


def read_shapes(manifest: Path | None) -> dict[str, dict[str, list[int]]]:
    """Return by model the shapes of its inputs: ``{"models": [{"name", "inputs": [{"name", "shape_used"}]}]}``."""
    if manifest is None:
        return {}
    models = json.loads(manifest.read_text("utf-8"))["models"]
    return {model["name"]: {entry["name"]: entry["shape_used"] for entry in model["inputs"]} for model in models}


def check_model(path: Path, budgets: Iterable[float], settings: Settings) -> list[Record]:
    """Run one model in a process of its own; return one record per budget, whatever becomes of the process."""
    budgets = list(budgets)
    command = [sys.executable, str(CHECK), str(path), "--budgets", ",".join(map(str, budgets))]
    command += ["--shapes", json.dumps(settings.shapes.get(path.stem, {}))]
    with tempfile.TemporaryDirectory(prefix="graphprune-zoo-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("wb") as stdout, err.open("wb") as stderr:
            environment = {**os.environ, "TMPDIR": folder}
            child = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, start_new_session=True)
            try:
                ended = f"ended with status {child.wait(settings.limit)}"
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                ended = f"was not done within {settings.limit:.0f} s"
        records = [Record(**json.loads(text)) for text in out.read_text("utf-8").splitlines() if text.endswith("}")]
        said = (err.read_text("utf-8", errors="replace").strip().splitlines() or [""])[-1]
    for budget in budgets[len(records) :]:
        records.append(Record(path.stem, budget))
        records[-1].fail(f"the process {ended}: {said[:300]}")
    return records


class Results:
    """Records by model and budget; kept in a file if there is one, failures to be tried again."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._records: dict[tuple[str, float], Record] = {}
        known = {entry.name for entry in fields(Record)}
        lines = file.read_text("utf-8").splitlines() if file is not None and file.exists() else []
        for text in lines:
            record = Record(**{key: value for key, value in json.loads(text).items() if key in known})
            self._records[record.name, record.budget] = record

    def missing(self, name: str, budgets: Iterable[float]) -> list[float]:
        """Return the budgets without a good record."""
        done = {budget for (model, budget), record in self._records.items() if model == name and not record.failures}
        return [budget for budget in budgets if budget not in done]

    def add(self, records: Iterable[Record]) -> None:
        """Keep records, the newest of a model and budget."""
        for record in records:
            self._records[record.name, record.budget] = record
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(record)) + "\n")

    def of(self, name: str, budgets: Iterable[float]) -> list[Record]:
        """Return the records of a model in the order of the budgets."""
        return [self._records[name, budget] for budget in budgets]


def check_elsewhere(shared: tuple[str, Settings], path: Path, budgets: list[float]) -> list[Record]:
    """Run one model from a process that may not know this folder."""
    folder, settings = shared
    if folder not in sys.path:
        sys.path.insert(0, folder)
    from zoo import check_model

    return check_model(path, budgets, settings)


def run(models: list[Path], settings: Settings, results: Results, workers: Workers) -> list[list[Record]]:
    """Check what is missing, a line per model as it is done; return the records of all, in their order."""
    print(heading(settings.budgets))
    missing = {path: results.missing(path.stem, settings.budgets) for path in models}
    for path in models:
        if not missing[path]:
            show(results.of(path.stem, settings.budgets))
    calls = [(path.absolute(), budgets) for path, budgets in missing.items() if budgets]
    folder = str(Path(__file__).resolve().parent)
    work = (
        (check_model(*call, settings) for call in calls)
        if workers.none
        else workers.results(check_elsewhere, (folder, settings), calls)
    )
    for records in work:
        results.add(records)
        show(results.of(records[0].name, settings.budgets))
    return [results.of(path.stem, settings.budgets) for path in models]


def show(row: list[Record]) -> None:
    """Print what came of a model."""
    print(line(row), flush=True)
    for record in row:
        for failure in record.failures:
            print(f"    FAILED at {record.budget}: {failure}", flush=True)
        for note in record.notes:
            print(f"    note at {record.budget}: {note}", flush=True)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Prune and check every model of a folder.")
    parser.add_argument("models", nargs="+", type=Path, metavar="FOLDER|FILE")
    parser.add_argument("--budgets", default="0.75,0.5,0.3", help="shares of the FLOPs to keep")
    parser.add_argument("--inputs", type=Path, metavar="MANIFEST", help="JSON with shapes for dynamic inputs")
    parser.add_argument("--resume", type=Path, metavar="JSONL", help="keep records here, skip what was fine")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one model")
    parser.add_argument("--markdown", "--out", type=Path, metavar="FILE", help="write a section of this Markdown file")
    parser.add_argument("--title", default="Models", help="of that section")
    parser.add_argument("--remark", default="", help="a sentence for that section")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time; seconds then mean less")
    parser.add_argument("--backend", choices=get_args(Backend), default="loky")
    parser.add_argument("--address", default="", help="of a cluster of that kind")
    options = parser.parse_args()
    budgets = tuple(float(text) for text in options.budgets.split(","))
    settings = Settings(budgets, read_shapes(options.inputs), options.limit)
    models = find_models(options.models)
    if not models:
        parser.error("there is no .onnx file")
    workers = Workers(options.jobs, options.backend, options.address)
    rows = run(models, settings, Results(options.resume), workers)
    print(summary(rows))
    if options.markdown:
        write_section(options.markdown, options.title, rows, budgets, options.remark)
    return int(any(record.failures for row in rows for record in row))


if __name__ == "__main__":
    sys.exit(main())
