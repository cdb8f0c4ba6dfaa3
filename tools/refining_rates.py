#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare rates at which made samples are refined, on a network that no figure is reported of.

    python tools/refining_rates.py small_cifar10.onnx cifar10.npz --rates 0.025 0.05 0.1 --solver sensitivity stage-wise

The network has learned from the first 45,000 training images of the archive (x_train, y_train; 8-bit, NHWC). The last
5,000 say, by their labels, what a rate is worth; test images are not looked at. Samples are the same for all rates. One
thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from recover_cifar import accuracy, cpu_seconds, source
from without_data import pruned_alone

import graphprune
from graphprune.data.synthesis.make_samples import SampleOptions
from graphprune.recovery.made_samples import REFINING_PASSES
from graphprune.recovery.matched_statistics import match_statistics
from graphprune.recovery.without_data import restorer_for
from graphprune.training.refine_samples import RefineOptions, refine_samples

LEARNED = 45_000


def main() -> None:
    """Print one line per rate, solver and method of recovery."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.025, 0.05, 0.1])
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--solver", nargs="+", default=["sensitivity"])
    parser.add_argument("--criterion", default="l1")
    parser.add_argument("--round-to", default="1")
    parser.add_argument("--recover", nargs="+", default=["least-squares"])
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.learn = options.save = None
    model = graphprune.load(options.model)
    with np.load(options.data) as data:
        unseen = source(model, data["x_train"][LEARNED:], data["y_train"][LEARNED:].astype(np.int64))
    print(json.dumps({"model": options.model.stem, **accuracy(model, unseen)}), flush=True)
    chosen = restorer_for(graphprune.analyze(model), SampleOptions(options.count, seed=options.seed))
    for rate in options.rates:
        start = cpu_seconds()
        made = refine_samples(model, chosen.made, RefineOptions(REFINING_PASSES, rate))
        restorer = replace(chosen, made=made, matched=match_statistics(model, made.source))
        prepared = cpu_seconds() - start
        for solver in options.solver:
            for line in pruned_alone(options, restorer, unseen, solver, prepared):
                print(json.dumps({"rate": rate, **line}), flush=True)


if __name__ == "__main__":
    main()
