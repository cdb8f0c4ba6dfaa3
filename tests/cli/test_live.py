# SPDX-License-Identifier: Apache-2.0
"""What is done is shown while it is done: on a terminal, in a pipe, and in a file of JSON lines."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import select
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from graphprune.cli import live
from graphprune.phases import LOGGER, phase, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Outcome

    Command = Callable[..., Outcome]


class AtOnce:
    """A timer that does not wait: what would be shown of a phase that takes its time is shown of every one."""

    def __init__(self, seconds: float, show: Callable[[], None]) -> None:
        self._show = show
        self.daemon = False

    def start(self) -> None:
        self._show()

    def cancel(self) -> None:
        """There is nothing to wait for."""


@pytest.fixture(autouse=True)
def listeners() -> Iterator[None]:
    yield
    live.detach()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "Timer", AtOnce)


@pytest.fixture
def data(tmp_path: Path) -> str:
    np.savez(tmp_path / "data.npz", image=np.random.default_rng(0).standard_normal((64, 3, 12, 12)).astype(np.float32))
    return "data.npz"


def test_a_pipe_is_told_what_is_done(quick: Command, model: Path, data: str, slow: None) -> None:
    done = quick("solve", model, "--flops", "0.5", "--calib", data)
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    for stage in ("loading", "analysis", "solving", "surgery", "verification", "recovering", "writing"):
        assert f"{stage} ..." in lines, done.err
        following = [line for line, before in zip(lines[1:], lines, strict=False) if line == before]
        assert following == []
    assert "loading ..." not in done.out


def test_what_is_quick_is_not_announced(quick: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_SILENT", 1e6)
    done = quick("solve", model, "--flops", "0.5", "--quick")
    assert (done.code, done.err) == (0, "")


def test_training_is_announced_before_its_first_step(quick: Command, model: Path, data: str, slow: None) -> None:
    pytest.importorskip("torch")
    assert quick("solve", model, "--flops", "0.5", "--quick").code == 0
    done = quick("finetune", "net.pruned.onnx", "--teacher", model, "--data", data, "--epochs", "1")
    assert done.code in (0, 1), done.err
    lines = done.err.splitlines()
    assert "importing torch ..." in lines
    assert lines.index("finetuning ...") < next(at for at, line in enumerate(lines) if "held-out" in line)


def shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> str:
    """Return what a terminal gets on stderr."""
    master, slave = pty.openpty()
    with io.TextIOWrapper(io.FileIO(slave, "w"), encoding="utf-8", write_through=True) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        act()
        monkeypatch.undo()
        shown = b""
        while select.select([master], [], [], 0.2)[0]:
            shown += os.read(master, 65536)
    os.close(master)
    return shown.decode()


def test_a_terminal_shows_a_bar_and_the_time(monkeypatch: pytest.MonkeyPatch, slow: None) -> None:
    def act() -> None:
        live.listen(live.ProgressDisplay())
        with phase("recovering"):
            progress(3, 8, "layer", loss=0.5)
        live.detach()

    shown = shown_on_a_terminal(monkeypatch, act)
    assert "recovering" in shown
    assert "layer  loss 0.5 3/8" in shown
    assert "0:00:00" in shown
    assert shown.rstrip().endswith("\x1b[2K")  # and takes it away


def test_a_log_has_every_phase_with_what_came_of_it(quick: Command, model: Path, data: str, tmp_path: Path) -> None:
    for _ in range(2):  # an old log is written anew
        done = quick("solve", model, "--flops", "0.5", "--calib", data, "--log", "log.jsonl", "--force")
        assert done.code == 0, done.err
    entries: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    ended = {entry["phase"]: entry for entry in entries if entry["event"] == "end"}
    assert [entry["phase"] for entry in entries if entry["event"] == "begin"].count("analysis") >= 1
    assert ended["solving"]["figures"]["flops"][0] > ended["solving"]["figures"]["flops"][1]
    assert ended["verification"]["figures"]["status"] == "verified"
    assert ended["recovering"]["figures"]["after"] < ended["recovering"]["figures"]["before"]
    assert all(entry["seconds"] >= 0 for entry in entries)
    counted = [entry for entry in entries if entry["phase"] == "recovering" and entry["event"] == "progress"]
    assert counted[-1]["done"] == counted[-1]["total"]
    assert any("samples  64 of data.npz" in entry.get("step", "") for entry in entries if entry["event"] == "remark")


def test_a_log_replaces_nothing_but_a_log(quick: Command, model: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    for path, message in ((model, "exists and is no log"), (tmp_path / "none" / "log", "cannot be written")):
        done = quick("inspect", model, "--log", path)
        assert done.code == 2
        assert message in done.err
    assert model.read_bytes() == before


def test_what_fails_is_in_the_log(quick: Command, model: Path, tmp_path: Path) -> None:
    done = quick("solve", model, "--flops", "0.0001", "--quick", "--log", "log.jsonl")
    assert done.code == 1
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert ("analysis", "failed") in [(entry["phase"], entry["event"]) for entry in entries]


def test_nobody_listens_once_a_command_has_ended(quick: Command, model: Path) -> None:
    assert quick("inspect", model, "--log", "log.jsonl").code == 0
    assert quick("inspect", "none.onnx", "-v").code == 2
    assert [handler for handler in LOGGER.handlers if isinstance(handler, live.Listener)] == []
    assert LOGGER.level == logging.NOTSET
