# SPDX-License-Identifier: Apache-2.0
"""User code that calls ``sys.exit`` ends the command with an error that names it, and never as if it was done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Outcome

LEAVING = """
import sys
import torch

def samples():
    sys.exit(0)

def loss(outputs, teacher, labels):
    sys.exit(0)

def transform(image):
    sys.exit()

def factory():
    sys.exit(0)

class Module(torch.nn.Module):
    def forward(self, x):
        sys.exit(0)
"""
EXPORT = ("--input-shape", "1x3x8x8", "--output", "out.onnx")
FINETUNE = ("finetune", "net.onnx", "--data", "data.npz", "--epochs", "1", "--rate", "0.01", "--device", "cpu")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("eval", "net.onnx", "--data", "leaving:samples"), "leaving:samples"),
        (("eval", "net.onnx", "--data", "leaving_at_once:samples"), "leaving_at_once:samples"),
        ((*FINETUNE, "--loss", "leaving:loss"), "loss"),
        ((*FINETUNE, "--augment", "leaving:transform"), "transform"),
        (("export", "leaving:factory", *EXPORT), "leaving:factory"),
        (("export", "leaving:Module", *EXPORT), "Module"),
    ],
    ids=["data", "import", "loss", "augment", "factory", "module"],
)
def test_it_is_named(
    quick: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    named: str,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leaving.py").write_text(LEAVING)
    (tmp_path / "leaving_at_once.py").write_text("import sys\nsys.exit(0)\n")
    x = np.random.default_rng(0).standard_normal((40, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=x, labels=np.arange(40) % 5)
    before = sorted(tmp_path.rglob("*.onnx"))
    done = quick(*arguments)
    assert done.code == 2, done.err
    assert "sys.exit(" in done.err
    assert named in done.err
    assert sorted(tmp_path.rglob("*.onnx")) == before
