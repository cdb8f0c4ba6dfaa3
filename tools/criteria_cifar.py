#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What criteria that look at samples choose in a CIFAR-10 network: accuracies before and after recovery.

    python tools/criteria_cifar.py resnet20_cifar10.onnx cifar10.npz --flops 0.5

The archive holds x_train, x_test (uint8, NHWC), y_train and y_test. Criteria and recovery see the first 1,024
training images; labels of these only where the table says so. Test labels are looked at for the figures that are
printed, and for nothing else. The table is printed as Markdown. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from recover_cifar import CALIBRATION, cpu_seconds, source

import graphprune


@dataclass(frozen=True)
class Row:
    """A criterion with its settings."""

    criterion: str
    settings: dict[str, str] = field(default_factory=dict)
    labels: bool = False

    def __str__(self) -> str:
        given = [f"{name}={value}" for name, value in self.settings.items()]
        return " ".join([f"`{self.criterion}`", *given, *(["labels"] if self.labels else [])])


ROWS = (
    Row("random"),
    Row("l1"),
    Row("bn-scale"),
    Row("hrank"),
    Row("reconstruct"),
    Row("cpli"),
    Row("cpli", {"guided": "false"}),
    Row("taylor"),
    Row("taylor", {"form": "weight"}),
    Row("taylor", labels=True),
    Row("fisher"),
    Row("domino-io"),
    Row("domino-io", {"base": "taylor"}),
)


def main() -> None:
    """Print a line per criterion and solver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--solvers", nargs="+", default=["uniform"])
    options = parser.parse_args()
    data = np.load(options.data)
    model = graphprune.load(options.model)
    images = data["x_train"][:CALIBRATION]
    plain, labelled = source(model, images), source(model, images, data["y_train"][:CALIBRATION].astype(np.int64))
    test = source(model, data["x_test"], data["y_test"].astype(np.int64))
    analysis = graphprune.analyze(model)
    print("| criterion | solver | pruned | recovered | s |\n|---|---|---|---|---|", flush=True)
    for row in ROWS:
        for solver in options.solvers:
            start = cpu_seconds()
            choices = graphprune.SolveOptions(solver, row.criterion, round_to=1, settings=row.settings)
            budget = graphprune.BudgetRequest("flops", options.flops)
            plan = graphprune.solve(analysis, budget, choices, data=labelled if row.labels else plain)
            seconds = cpu_seconds() - start
            pruned = graphprune.apply(analysis, plan)
            recovered = graphprune.recover(analysis, pruned, plan, plain).model
            figures = [f"{graphprune.evaluate(each, test).top1:.2%}".replace("%", " %") for each in (pruned, recovered)]
            print(f"| {row} | {solver} | {figures[0]} | {figures[1]} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
