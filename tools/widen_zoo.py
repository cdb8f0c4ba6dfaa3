# SPDX-License-Identifier: Apache-2.0
"""There and back: widen each model, prune it without loss, and see whether the original is back.

Prints a row per model for docs/widening.md::

    python tools/widen_zoo.py MODEL.onnx... --factor 2
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

import graphprune
from graphprune.analysis.analysis import Analysis
from graphprune.errors import GraphPruneError
from graphprune.model.load import Model

HEAD = (
    "| model | groups | FLOPs | wide | all tensors | back | widths | outputs | seconds |\n"
    "|---|---:|---:|---:|---:|---:|---|---:|---:|"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--factor", type=float, default=2.0)
    parser.add_argument("--noise", type=float, default=0.0)
    given = parser.parse_args()
    print(HEAD)
    for path in given.models:
        try:
            print(row(path, graphprune.WidenOptions(given.factor, given.noise)), flush=True)
        except GraphPruneError as error:
            print(f"| {path.stem} | failed: {error.message} |", flush=True)


def row(path: Path, options: graphprune.WidenOptions) -> str:
    """Widen one model and prune it again."""
    started = time.perf_counter()
    analysis = graphprune.analyze(graphprune.load(path))
    found = graphprune.widen(analysis, options)
    with tempfile.TemporaryDirectory() as folder:
        stored = graphprune.save(found.model, Path(folder) / "wide.onnx")
        wide = graphprune.analyze(graphprune.load(stored), graphprune.AnalyzeOptions(analysis.input_shapes))
        lossless = graphprune.SolveOptions(lossless=True)
        plan = graphprune.solve(wide, (), lossless)
        back = graphprune.apply(wide, plan)
        graphprune.verify(wide, back, plan)
        error = deviation(analysis, graphprune.save(back, Path(folder) / "back.onnx"))
    # What may go from the original itself need not come back.
    own = graphprune.solve(analysis, (), lossless)
    widths = [len(group.kept) for group in plan.groups]
    wanted = [len(group.kept) for group in own.groups]
    check = found.verification
    narrow = sum(group.after == group.before for group in found.groups)
    cells = [
        path.stem,
        f"{len(found.groups)}" + (f" ({narrow} narrow)" if narrow else ""),
        f"{analysis.cost.flops(analysis.cost.sizes):,}",
        f"{found.flops / analysis.cost.flops(analysis.cost.sizes):.2f} x",
        "not run" if check is None else f"{check.error:.1e}",
        f"{plan.budget.after:,}",
        "the original's" if widths == wanted else f"{sum(a != b for a, b in zip(widths, wanted, strict=True))} differ",
        f"{error:.1e}",
        f"{time.perf_counter() - started:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def deviation(analysis: Analysis, path: Path) -> float:
    """Return the largest deviation of the outputs of a file from the original's, relative to their largest value."""
    random = np.random.default_rng(0)
    feeds = {}
    for name, shape in analysis.input_shapes.items():
        feeds[name] = random.standard_normal(shape).astype(np.float32)
    outputs = []
    for model in (_bytes(analysis.model), path.read_bytes()):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        outputs.append(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds))
    pairs = zip(*outputs, strict=True)
    return max(float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-30)) for one, other in pairs)


def _bytes(model: Model) -> bytes:
    if model.path is None:
        raise GraphPruneError("the model is in no file")
    return model.path.read_bytes()


if __name__ == "__main__":
    main()
