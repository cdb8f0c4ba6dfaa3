#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What merging removed channels does to the accuracy of a CIFAR-10 network, without data and without training.

    python tools/inherit_cifar.py resnet20_cifar10.onnx cifar10.npz > docs/inheritance.md

The archive holds x_test (uint8, NHWC) and y_test. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import graphprune
from graphprune.data.signature import input_specs

PREPROCESSING = graphprune.Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SHARES = (0.9, 0.8, 0.7)
CRITERIA = ("l1", "l2", "fpgm")

HEAD = """# Inheritance of removed channels

Top-1 accuracy on the 10,000 test images of CIFAR-10 after pruning and nothing else: no data, no training. `keep`
removes a channel with the weights that read it; `merge` (`--inherit merge`) adds a multiple of these to the weights
that read the most similar kept channel. Made by `python tools/inherit_cifar.py MODEL DATA > docs/inheritance.md`.
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    data = np.load(options.data)
    model = graphprune.load(options.model)
    specs = input_specs(model)
    labels = data["y_test"].astype(np.int64)
    test = graphprune.from_arrays("CIFAR-10", specs, {specs[0].name: data["x_test"]}, labels, PREPROCESSING)
    analysis = graphprune.analyze(model)
    print(HEAD)
    print(f"{options.model.stem}: {100 * graphprune.evaluate(model, test).top1:.2f} % before pruning.\n")
    print("| criterion | FLOPs | keep | merge | merged channels |")
    print("|---|---:|---:|---:|---:|")
    for criterion in CRITERIA:
        for share in SHARES:
            budget = graphprune.BudgetRequest("flops", share)
            row = []
            for inherit in ("keep", "merge"):
                choices = graphprune.SolveOptions(criterion=criterion, inherit=inherit)
                plan = graphprune.solve(analysis, budget, choices)
                row.append(f"{100 * graphprune.evaluate(graphprune.apply(analysis, plan), test).top1:.2f} %")
            merged = sum(len(group.merged) for group in plan.groups)
            removed = sum(group.size - len(group.kept) for group in plan.groups)
            print(f"| {criterion} | {share:g} | {' | '.join(row)} | {merged} of {removed} |", flush=True)


if __name__ == "__main__":
    main()
