# SPDX-License-Identifier: Apache-2.0
"""The example files are what tools/train_digits.py says they are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
from source_tree import ROOT

EXAMPLES = ROOT / "examples"


def test_model_is_small_and_keeps_batch_normalization() -> None:
    file = EXAMPLES / "digits.onnx"
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert file.stat().st_size < 500_000
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("BatchNormalization") == operators.count("Conv") == 13
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]


def test_held_out_images_are_scaled_and_labelled() -> None:
    with np.load(EXAMPLES / "digits_test.npz") as arrays:
        assert set(arrays) == {"image", "labels"}
        image, labels = arrays["image"], arrays["labels"]
    assert image.shape == (599, 1, 8, 8)
    assert image.dtype == np.float32
    assert (float(image.min()), float(image.max())) == (0.0, 1.0)
    assert sorted(set(labels.tolist())) == list(range(10))


def test_accuracy_as_the_evaluation_tool_prints_it() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "eval_digits.py", EXAMPLES / "digits.onnx"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert float(run.stdout.split("%")[0]) > 99
