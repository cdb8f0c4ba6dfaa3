# SPDX-License-Identifier: Apache-2.0
"""``graphprune train`` is killed at a random moment, and ends with the same files once it is resumed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from forked_runs import ForkedRun, start
from pruning_cases import KINDS
from training_cases import images
from training_runs import command

WRITTEN = ("net.trained.onnx", "net.pruned.onnx", "net.plan.json")
STATE = "net.trained.onnx.checkpoint.safetensors"
TRAIN = ("train", "net.onnx", "--data", "data.npz", "--method", "cac", "--flops", "0.7", "--round-to", "1")
HOW = ("--epochs", "12", "--batch", "16", "--checkpoint-every", "2", "--device", "cpu")


def started(folder: Path, *further: str) -> ForkedRun:
    return start(folder, command, folder, *TRAIN, *HOW, *further)


def prepared(folder: Path) -> Path:
    folder.mkdir()
    onnx.save(KINDS["folded"](), folder / "net.onnx")
    np.savez(folder / "data.npz", image=images(96), labels=np.arange(96) % 4)
    return folder


def saved_times(folder: Path, run: ForkedRun, times: int) -> None:
    """Wait until a run has saved its state so many times."""
    seen: set[tuple[int, int]] = set()
    while len(seen) < times and run.process.exitcode is None:
        if (folder / STATE).exists():
            facts = (folder / STATE).stat()
            seen.add((facts.st_ino, facts.st_mtime_ns))  # numbers of files that were replaced are used again
        time.sleep(0.001)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepared(tmp_path_factory.mktemp("killed") / "whole")
    run = started(folder)
    assert run.ended() == 0, run.printed()
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_command_is_resumed_to_the_same_files(whole: Path, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    folder = prepared(tmp_path / "killed")
    run = started(folder)
    saved_times(folder, run, int(random.integers(1, 4)))
    time.sleep(float(random.uniform(0.0, 0.02)))
    run.process.kill()
    assert run.ended() == -signal.SIGKILL, run.printed()
    assert not any((folder / name).exists() for name in WRITTEN)
    again = started(folder, "--resume")
    assert again.ended() == 0, again.printed()
    for name in WRITTEN:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (folder / STATE).exists()
