# SPDX-License-Identifier: Apache-2.0
"""A small residual network as a file, and the real command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphprune.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NETWORK = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "tests">
net (float[n, 3, 12, 12] image) => (float[n, 5] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, stem)
    b = BatchNormalization (a, scale0, bias0, mean0, var0)
    c = Relu (b)
    d = Conv <pads = [1, 1, 1, 1]> (c, first)
    e = BatchNormalization (d, scale1, bias1, mean1, var1)
    f = Relu (e)
    g = Conv <pads = [1, 1, 1, 1]> (f, second)
    h = BatchNormalization (g, scale2, bias2, mean2, var2)
    i = Add (h, c)
    j = Relu (i)
    k = GlobalAveragePool (j)
    l = Flatten (k)
    scores = Gemm (l, head, offset)
}
"""
SHAPES = {"stem": (16, 3, 3, 3), "first": (32, 16, 3, 3), "second": (16, 32, 3, 3), "head": (16, 5), "offset": (5,)}
WIDTHS = (16, 32, 16)


def network(seed: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    model: onnx.ModelProto = onnx.parser.parse_model(NETWORK)
    shapes = dict(SHAPES)
    for index, width in enumerate(WIDTHS):
        shapes |= {f"{name}{index}": (width,) for name in ("scale", "bias", "mean", "var")}
    for name, shape in shapes.items():
        values = rng.uniform(0.5, 1.5, shape) if name.startswith("var") else rng.normal(0, 0.3, shape)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    return model


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    return path


@pytest.fixture
def other_weights(tmp_path: Path) -> Path:
    path = tmp_path / "retrained.onnx"
    onnx.save(network(seed=1), path)
    return path


@pytest.fixture
def graphprune(tmp_path: Path) -> Callable[..., Outcome]:
    def run(*arguments: object, **options: Any) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "graphprune", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1", **options.pop("env", {})},
            **options,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a command in this process: the same code, without the time that a start takes."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([*map(str, arguments)])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
