#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recover a CIFAR-10 network from a few real images, alone, multiplied, or beside images that are made.

    OMP_NUM_THREADS=1 python tools/few_samples.py resnet20_cifar10.onnx cifar10.npz --counts 8 32 128 512
    OMP_NUM_THREADS=1 python tools/few_samples.py resnet20_cifar10.onnx cifar10.npz --counts 500 --photographs photos/

Half of the FLOPs, uniform widths by L1, which no sample decides; least squares from so many training images, unlabelled

- as they are, with their mirror images;
- multiplied: copies that are flipped, shifted and of other brightness, `--total` in all, refined by gradient until
  every normalisation meets what it remembers;
- and as many images that are made from the file alone and refined likewise;
- and from those alone, once.

With --photographs, those of a folder stand for the training images, scaled down: images of another world than the
network's own. The refined ones that are made are the same in all rows. Accuracy is that on the test images, which
choose nothing. One line per row.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from recover_cifar import accuracy, cpu_seconds, scaled_down, source

import graphprune
from graphprune.data.signature import input_specs
from graphprune.data.synthesis.make_samples import MadeSamples, SampleOptions
from graphprune.recovery.made_samples import made_samples
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.training.refine_samples import RefineOptions, refine_samples

SHIFT = 4


def copies(images: np.ndarray, total: int, seed: int) -> np.ndarray:
    """Return copies of 8-bit images, flipped, shifted, and of another brightness and contrast."""
    rng = np.random.default_rng(seed)
    chosen = images[np.arange(total) % len(images)].astype(np.float64)
    padded = np.pad(chosen, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="reflect")
    moved = np.empty_like(chosen)
    for number, (down, across, mirrored) in enumerate(rng.integers(0, (2 * SHIFT + 1, 2 * SHIFT + 1, 2), (total, 3))):
        part = padded[number, down : down + images.shape[1], across : across + images.shape[2]]
        moved[number] = part[:, ::-1] if mirrored else part
    contrast, brightness = rng.uniform(0.8, 1.2, (2, total, 1, 1, 1))
    middle = moved.mean(axis=(1, 2, 3), keepdims=True)
    return np.clip((moved - middle) * contrast + middle * brightness, 0, 255).astype(np.uint8)


def joined(model: graphprune.Model, *parts: graphprune.Source) -> graphprune.Source:
    """Return the samples of several sources as one."""
    (name,) = (value.name for value in model.proto.graph.input)
    arrays = [part.read(np.arange(len(part))).feeds[name] for part in parts]
    return graphprune.from_arrays("images", input_specs(model), {name: np.concatenate(arrays)})


def ways(
    model: graphprune.Model, images: np.ndarray, total: int, seed: int, made: graphprune.Source
) -> Iterator[tuple[str, graphprune.Source]]:
    """Yield what least squares sees, with its name."""
    real = source(model, np.concatenate([images, images[:, :, ::-1]]))
    yield "real", real
    many = MadeSamples(source(model, copies(images, total, seed)), {}, "copies", total)
    refined = refine_samples(model, many, RefineOptions(device="cpu")).source
    yield "multiplied", refined
    yield "real and multiplied", joined(model, real, refined)
    yield "real and made", joined(model, real, made)


def main() -> None:
    """Print one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[8, 32, 128, 512])
    parser.add_argument("--total", type=int, default=512, help="images that are refined")
    parser.add_argument("--photographs", type=Path, help="a folder of images that are given instead")
    parser.add_argument("--methods", nargs="+", default=["least-squares"], help="of recovery")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data, model = np.load(options.data), graphprune.load(options.model)
    test = source(model, data["x_test"], data["y_test"].astype(np.int64))
    analysis = graphprune.analyze(model)
    plan = graphprune.solve(
        analysis,
        graphprune.BudgetRequest("flops", options.flops),
        graphprune.SolveOptions(solver="uniform", criterion="l1", round_to=1),
    )
    pruned = graphprune.apply(analysis, plan)

    def show(count: int, way: str, samples: graphprune.Source) -> None:
        for method in options.methods:
            wanted = RecoverOptions(method=method, samples=len(samples), seed=options.seed)
            recovery = graphprune.recover(analysis, pruned, plan, samples, wanted)
            row = {"real images": count, "way": way, "samples": len(samples), "method": method}
            row |= {**accuracy(recovery.model, test), "improved": recovery.improved, "cpu_s": round(cpu_seconds(), 1)}
            print(json.dumps(row), flush=True)

    made = made_samples(model, SampleOptions(options.total, seed=options.seed, quality="fine")).source
    show(0, "made", made)
    images = scaled_down(options.photographs) if options.photographs else data["x_train"]
    for count in options.counts:
        for way, samples in ways(model, images[:count], options.total, options.seed, made):
            show(count, way, samples)


if __name__ == "__main__":
    main()
