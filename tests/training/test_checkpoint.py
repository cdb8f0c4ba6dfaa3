# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is read is what was written, of this run only."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from graphprune.errors import InputError, UsageError
from graphprune.training.checkpoint import Progress, read_checkpoint, write_checkpoint

PROGRESS = Progress(7, 0.01, math.inf, 0.5, 3, "", {"scale": 2.0}, {"0.01": 0.5, "0.1": math.inf})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    tensors = {"net/a.b": torch.randn(3, 4), "optimizer/0/step": torch.tensor(5.0), "n": torch.arange(3)}
    for _ in range(2):
        write_checkpoint(path, "run", PROGRESS, tensors)
    progress, found = read_checkpoint(path, "run")
    assert progress == PROGRESS
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.safetensors"]


def test_another_run_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", "one", PROGRESS, {})
    with pytest.raises(UsageError, match="other models, data or options"):
        read_checkpoint(tmp_path / "run", "two")


@pytest.mark.parametrize("content", [None, b"", b"\x08\0\0\0\0\0\0\0{}      ", b"damaged" * 99])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="checkpoint"):
        read_checkpoint(path, "run")
