# SPDX-License-Identifier: Apache-2.0
"""Accuracy of ONNX files on the held-out digits that ``tools/train_digits.py`` wrote.

::

    python tools/eval_digits.py examples/digits.onnx examples/digits.pruned.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime as ort


def accuracy(model: Path, data: Path) -> float:
    """Return the fraction of images whose largest logit is at the label.

    Parameters
    ----------
    model : Path
        ONNX file with one output of shape (batch, classes).
    data : Path
        ``.npz`` file: one array per model input, under its name, and ``labels``.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(data) as arrays:
        feed = {wanted.name: arrays[wanted.name] for wanted in session.get_inputs()}
        labels = arrays["labels"]
    (logits,) = session.run(None, feed)
    return float(np.mean(logits.argmax(axis=1) == labels))


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description="Accuracy of ONNX files on held-out labelled arrays.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--data", type=Path, default=Path("examples/digits_test.npz"))
    options = parser.parse_args()
    for model in options.models:
        print(f"{accuracy(model, options.data):7.2%}  {model}")


if __name__ == "__main__":
    main()
