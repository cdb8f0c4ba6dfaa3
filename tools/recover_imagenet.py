#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune an ImageNet network and bring its accuracy back from a few photographs, without training and without labels.

    graphprune export torchvision:mobilenet_v2 --weights mobilenet_v2-b0353104.pth -o mobilenet_v2.onnx
    python tools/recover_imagenet.py mobilenet_v2.onnx photographs/ --flops 0.7
    python tools/recover_imagenet.py mobilenet_v2.onnx photographs/ --flops 0.7 --fold

The folder holds photographs of 224x224 pixels, named after their class (`017.jpg`). In the order of their names, every
other one calibrates and the rest are what is evaluated; their labels are looked at for the figures that are printed.
With --fold, onnxruntime first folds BatchNormalization into the convolutions. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image
from recover_cifar import cpu_seconds, runs, source

import graphprune


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--fold", action="store_true", help="fold BatchNormalization first")
    parser.add_argument("--flops", type=float, default=0.7)
    parser.add_argument("--widths", choices=["uniform", "sensitivity"], nargs="+", default=["uniform"])
    parser.add_argument("--stages", type=int, default=1, help="steps in which the search approaches the budget")
    parser.add_argument("--measured", type=int, default=32, help="photographs on which sensitivity is measured")
    parser.add_argument("--criterion", default="l1", help="with uniform widths")
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["bn", "bias", "least-squares"], help="with uniform widths")
    parser.add_argument("--save", type=Path, help="folder for the recovered models")
    return parser.parse_args()


def main() -> None:
    """Print one line per result."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        compare(options, graphprune.load(folded(options.model, Path(folder)) if options.fold else options.model))


def compare(options: argparse.Namespace, model: graphprune.Model) -> None:
    """Print what each method brings."""
    paths = sorted(options.photographs.glob("*.jpg"))
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    labels = np.array([int(path.stem) for path in paths], np.int64)
    calibration, test = source(model, images[::2]), source(model, images[1::2], labels[1::2])
    analysis = graphprune.analyze(model)
    show(model, test, method="dense", photographs=len(test), folded=options.fold)
    for widths in options.widths:
        how = argparse.Namespace(**{**vars(options), "widths": widths})
        for number, (name, plan, recovery, seconds) in enumerate(runs(how, analysis, options.flops, calibration)):
            flops = round(plan.budget.after / plan.budget.before, 4)
            if number == 0:
                show(graphprune.apply(analysis, plan), test, method=f"{widths} none", flops=flops)
            errors = [round(recovery.before, 4), round(recovery.after, 4)]
            show(recovery.model, test, method=name, flops=flops, held_out_error=errors, cpu_s=round(seconds, 1))
            if options.save:
                kind = "folded" if options.fold else "kept"
                target = options.save / f"{options.model.stem}-{kind}-{options.flops:g}-{name.replace(' ', '-')}.onnx"
                graphprune.save(recovery.model, target, force=True)
    print(json.dumps({"cpu_s": round(cpu_seconds(), 1)}))


def folded(path: Path, folder: Path) -> Path:
    """Return the file of the network with BatchNormalization folded."""
    target = folder / path.name
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return target


def show(model: graphprune.Model, test: graphprune.Source, **facts: object) -> None:
    """Print what is known of a network, with its accuracy."""
    found = graphprune.evaluate(model, test)
    print(json.dumps({**facts, "top1": found.top1, "top5": found.top5}), flush=True)


if __name__ == "__main__":
    main()
