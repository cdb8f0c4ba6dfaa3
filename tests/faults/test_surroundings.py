# SPDX-License-Identifier: Apache-2.0
"""What surrounds a run has no effect: a clock that jumps, a process that was forked, a strict umask."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import chain

from graphprune.cli import main

SOLVE = ("solve", "net.onnx", "--quick", "--flops", "0.5", "--round-to", "1", "--force")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.onnx").write_bytes(chain("m = Relu (h)").SerializeToString())
    monkeypatch.chdir(tmp_path)
    assert main([*SOLVE]) == 0
    return tmp_path


def written(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("net.pruned.onnx", "net.plan.json")]


@pytest.mark.parametrize(
    "jump", [lambda at: 1e9 - 3600.0 * at, lambda at: 4e9 * (at % 2)], ids=["back", "there-and-back"]
)
def test_a_clock_that_jumps_has_no_effect(
    folder: Path, monkeypatch: pytest.MonkeyPatch, jump: Callable[[int], float]
) -> None:
    before, ticks = written(folder), itertools.count()
    monkeypatch.setattr(time, "time", lambda: jump(next(ticks)))
    monkeypatch.setattr(time, "time_ns", lambda: int(jump(next(ticks)) * 1e9))
    assert main([*SOLVE]) == 0
    assert written(folder) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_writes_the_same(folder: Path) -> None:
    before = written(folder)
    child = os.fork()
    if not child:
        code = 99
        try:
            code = main([*SOLVE])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert written(folder) == before


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_strict_umask_holds_for_what_is_written_and_for_nothing_else(folder: Path) -> None:
    before, mask = written(folder), os.umask(0o077)
    try:
        for name in ("net.pruned.onnx", "net.plan.json"):
            (folder / name).unlink()
        assert main([*SOLVE]) == 0
    finally:
        os.umask(mask)
    assert written(folder) == before
    assert [(folder / name).stat().st_mode & 0o777 for name in ("net.pruned.onnx", "net.plan.json")] == [0o600] * 2
