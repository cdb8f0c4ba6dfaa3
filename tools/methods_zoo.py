# SPDX-License-Identifier: Apache-2.0
"""Prune models while they train, by every method: a line of JSON per run, and a table.

::

    python tools/methods_zoo.py resnet20.onnx mobilenet_v2.onnx --flops 0.6
    python tools/methods_zoo.py detector.onnx --methods cac,fbs --shapes '{"images": [1, 3, 96, 96]}'

Each run is a `graphprune train` in a process of its own, within a time limit, from a few images of random numbers,
with random labels where an output holds scores of classes: it shows whether a method can be used, not what it is
worth. `verified` is the largest deviation of the pruned file from the masked trained one, or for a plan without loss
from the trained one itself; `seconds` are those of one processor. `status` is "ok"; "refused" where graphprune says why
it cannot be done; and "failed" otherwise. The exit status is 1 if any failed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

import graphprune
from graphprune.errors import GraphPruneError
from graphprune.training.bridge import to_torch
from graphprune.training.losses import choose_kinds

METHODS = {
    "slimming bn-l1": "slimming regularize=bn-l1",
    "slimming group-norm": "slimming regularize=group-norm",
    "slimming growing": "slimming regularize=growing",
    "cac monte-carlo": "cac estimator=monte-carlo",
    "cac first-order": "cac estimator=first-order",
    "csgd": "csgd",
    "white-box": "white-box",
    "stage-wise": "stage-wise images=16 candidates=8",
    "stage-wise no supernet": "stage-wise samples=0 images=16 candidates=8",
    "fbs": "fbs",
}
"""By what they are called in the table: the method and its settings."""


@dataclass(frozen=True)
class Settings:
    """What holds for all runs."""

    flops: float
    images: int
    batch: int
    epochs: float
    seed: int
    limit: float
    further: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What one method made of one model."""

    model: str
    method: str
    status: str
    labels: bool = False
    seconds: float = 0.0
    flops: float | None = None
    removals: int = 0
    verified: float | None = None
    error: str = ""


def write_samples(path: Path, target: Path, shapes: dict[str, list[int]], given: Settings) -> bool:
    """Write random samples for a model; return whether they have labels."""
    analysis = graphprune.analyze(
        graphprune.load(path), graphprune.AnalyzeOptions({name: tuple(shape) for name, shape in shapes.items()})
    )
    random = np.random.default_rng(given.seed)
    arrays = {
        name: random.standard_normal((given.images, *shape[1:])).astype(np.float32)
        for name, shape in analysis.input_shapes.items()
    }
    classes = count_classes(analysis)
    if classes:
        arrays["labels"] = random.integers(0, classes, given.images)
    np.savez(target, **arrays)
    return bool(classes)


def count_classes(analysis: graphprune.Analysis) -> int:
    """Return how many classes the first output with scores tells apart; 0 if there is none."""
    net = to_torch(analysis.model)
    ranks = {name: len(analysis.shapes.dims.get(name) or ()) for name in net.outputs}
    for name, kind in choose_kinds(net.graph, ranks).items():
        size = (analysis.shapes.dims.get(name) or (0, 0))[-1]
        if kind == "kl" and isinstance(size, int):
            return size
    return 0


def run(path: Path, method: str, data: Path, shapes: dict[str, list[int]], given: Settings) -> Run:
    """Prune one model by one method."""
    found = Run(path.stem, method, "failed")
    with tempfile.TemporaryDirectory(prefix="graphprune-methods-") as folder:
        files = {name: str(Path(folder, f"{name}.onnx")) for name in ("trained", "output")}
        files["plan"] = str(Path(folder, "plan.json"))
        name, *settings = METHODS[method].split()
        command = ["train", str(path), "--data", str(data), "--method", name, "--flops", str(given.flops), "--json"]
        command += ["--epochs", str(given.epochs), "--batch", str(given.batch), "--seed", str(given.seed)]
        command += ["--augment", "none", "--device", "cpu", *given.further]
        command += [part for setting in settings for part in ("--set", setting)]
        command += [part for key, file in files.items() for part in (f"--{key}", file)]
        for key, shape in shapes.items():
            command += ["--input-shape", f"{key}={'x'.join(map(str, shape))}"]
        started = cpu_seconds()
        code, out, said = graphprune_says(command, given.limit)
        found = replace(found, seconds=round(cpu_seconds() - started, 1))
        if code != 0:
            return replace(found, status="refused" if code in {1, 2} else "failed", error=said)
        summary = json.loads(out)
        trace = json.loads(Path(files["plan"]).read_text("utf-8"))["solver"]["trace"]
        found = replace(
            found,
            flops=round(summary["flops"]["ratio"], 4),
            removals=sum(entry.get("stage") == "removal" for entry in trace),
            verified=summary["verification"]["error"],
        )
        if summary["verification"]["status"] != "verified":
            return replace(found, error=f"the verification is {summary['verification']['status']}")
        if summary["flops"]["ratio"] > given.flops:
            return replace(found, error="above the budget")
    return replace(found, status="ok")


def cpu_seconds() -> float:
    """Return what processes that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def graphprune_says(command: Sequence[str], limit: float) -> tuple[int, str, str]:
    """Run graphprune; return its exit status, what it printed, and its error."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "graphprune", *command],
            capture_output=True,
            text=True,
            env=environment,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"was not done within {limit:.0f} s"
    said = done.stderr.strip().splitlines() or [""]
    start = next((number for number, text in enumerate(said) if text.startswith("error:")), len(said) - 1)
    return done.returncode, done.stdout, " ".join(text.strip() for text in said[start:])[:600]


def row(found: Run) -> str:
    """Return a row of the table."""
    flops = "" if found.flops is None else f"{found.flops:.1%}"
    verified = "" if found.verified is None else f"{found.verified:.1e}"
    status = found.status if not found.error else f"{found.status}: {found.error}"
    removals = str(found.removals) if found.removals else ""
    cells = (found.model, found.method, flops, removals, verified, f"{found.seconds:.0f}", status)
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Run every method on every model; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--methods", default=",".join(METHODS), help="some of them, by commas")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one run")
    parser.add_argument("--shapes", type=json.loads, default={}, help='JSON: {"input": [1, 3, 64, 64]}')
    parser.add_argument("--further", default="", help="further options of `graphprune train`, by spaces")
    parser.add_argument("--markdown", action="store_true", help="print rows of a table instead of JSON")
    options = parser.parse_args()
    further = tuple(options.further.split())
    given = Settings(options.flops, options.images, options.batch, options.epochs, options.seed, options.limit, further)
    failed = False
    for path in options.models:
        with tempfile.TemporaryDirectory(prefix="graphprune-methods-") as folder:
            data = Path(folder, "samples.npz")
            try:
                labels = write_samples(path, data, options.shapes, given)
            except GraphPruneError as error:
                print(json.dumps(asdict(Run(path.stem, "", "failed", error=error.message))), flush=True)
                failed = True
                continue
            for method in options.methods.split(","):
                found = replace(run(path, method, data, options.shapes, given), labels=labels)
                failed = failed or found.status == "failed"
                print(row(found) if options.markdown else json.dumps(asdict(found)), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
