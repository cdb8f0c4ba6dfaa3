# SPDX-License-Identifier: Apache-2.0
"""How long the label pass takes, beside that of an older checkout, in one run.

::

    python tools/bench_labels.py --old OLDER/venv/bin/python models/*.onnx

OLD is an interpreter that runs the older checkout. Both trees load every model in a process of their own, find out all
shapes, and then take turns with the label pass (rules, then resolution). Compared are the shortest of the times of each
tree, in CPU seconds: a busy machine does not show in them. Printed are the ratios of the slowest models, that of all
times together, and their geometric mean.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_SHOWN = 12


def label_pass(analysis: Any) -> Callable[[], object]:
    """Return the label pass of this tree over an analysed model; older trees have fewer parts."""
    from graphprune.labels.propagate import propagate

    options: dict[str, Any] = {}
    if "other" in inspect.signature(propagate).parameters:
        other = analysis.other_shapes
        options["other"] = lambda: other
    try:
        from graphprune.analysis.alternatives import resolve_grouped
    except ImportError:
        from graphprune.labels.resolve import resolve

        return lambda: resolve(propagate(analysis.graph, analysis.shapes, analysis.constants, **options).space)
    return lambda: resolve_grouped(propagate(analysis.graph, analysis.shapes, analysis.constants, **options))


def work() -> None:
    """Answer requests on standard input: a path to load a model, an empty line to time one label pass."""
    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import load

    run: Callable[[], object] = int
    for line in sys.stdin:
        path = line.strip()
        started = time.process_time()
        if path:
            run = label_pass(Analysis(load(path)))
        run()
        print(json.dumps(time.process_time() - started), flush=True)


class Tree:
    """A process that runs one tree."""

    def __init__(self, python: str) -> None:
        command = [python, "-P", "-W", "ignore", __file__, "--work"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.python = python

    def ask(self, line: str) -> float:
        """Send a request and return the seconds that it took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.python} ended at {line}")
        return float(json.loads(answer))

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def compare(models: list[Path], old: str, turns: int) -> dict[str, tuple[float, float]]:
    """Return the shortest seconds of the older and of this tree by model; a model that either refuses is left out."""
    trees = [Tree(old), Tree(sys.executable)]
    found: dict[str, tuple[float, float]] = {}
    for path in models:
        try:
            for tree in trees:
                tree.ask(str(path))
            times = [[tree.ask("") for tree in trees] for _ in range(turns)]
        except RuntimeError as error:
            print(f"left out: {error}", file=sys.stderr)
            trees = [Tree(old), Tree(sys.executable)]
            continue
        before, now = (float(each) for each in np.min(times, axis=0))
        found[path.stem] = before, now
    for tree in trees:
        tree.end()
    return found


def main() -> None:
    """Compare, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--old", help="an interpreter that runs the older checkout")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return
    if not options.old or not options.models:
        parser.error("--old and models are needed")
    found = compare(options.models, options.old, options.turns)
    pairs = np.asarray(list(found.values()))
    ratios = pairs[:, 1] / pairs[:, 0]
    for at in np.argsort(-pairs[:, 1])[:_SHOWN]:
        print(f"{list(found)[at]:50} {pairs[at, 0]:8.3f} s {pairs[at, 1]:8.3f} s {ratios[at]:6.2f}")
    total = pairs.sum(axis=0)
    print(f"{len(found)} models: {total[0]:.2f} s before, {total[1]:.2f} s now: {total[1] / total[0]:.3f} of it")
    print(f"geometric mean of the ratios {np.exp(np.log(ratios).mean()):.3f}, median {np.median(ratios):.3f}")


if __name__ == "__main__":
    main()
