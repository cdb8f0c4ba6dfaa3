#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune an ImageNet network and bring its accuracy back from a few photographs, without training and without labels.

    graphprune export torchvision:mobilenet_v2 --weights mobilenet_v2-b0353104.pth -o mobilenet_v2.onnx
    python tools/recover_imagenet.py mobilenet_v2.onnx photographs/ --solver uniform --methods none bn least-squares
    python tools/recover_imagenet.py mobilenet_v2.onnx photographs/ --mirror --fold
    python tools/recover_imagenet.py mobilenet_v2.onnx photographs/ --solver sensitivity --copies 3 --swap

The folder holds photographs of 224x224 pixels, named after their class (`017.jpg`). In the order of their names, every
other one calibrates and the rest are what is evaluated; their labels are looked at for the figures that are printed.
With --swap it is the other way round: another draw. With --fold, onnxruntime first folds BatchNormalization into the
convolutions. All other options are those of `recover_cifar.py`. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image
from recover_cifar import accuracy, add_options, compare, cpu_seconds, source

import graphprune


def main() -> None:
    """Print one line per result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--fold", action="store_true", help="fold BatchNormalization first")
    parser.add_argument("--swap", action="store_true", help="calibrate on the other half")
    add_options(parser, flops=0.7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = graphprune.load(folded(options.model, Path(folder)) if options.fold else options.model)
        paths = sorted(options.photographs.glob("*.jpg"))
        images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
        labels = np.array([int(path.stem) for path in paths], np.int64)
        first, second = slice(options.swap, None, 2), slice(not options.swap, None, 2)
        test = source(model, images[second], labels[second])
        print(json.dumps({"model": options.model.stem, **accuracy(model, test)}), flush=True)
        compare(options, model, images[first], test)
    print(json.dumps({"cpu_s": round(cpu_seconds(), 1)}))


def folded(path: Path, folder: Path) -> Path:
    """Return the file of the network with BatchNormalization folded."""
    target = folder / path.name
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return target


if __name__ == "__main__":
    main()
