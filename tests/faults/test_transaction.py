# SPDX-License-Identifier: Apache-2.0
"""A model and its plan are written together or not at all, and of two writers none replaces what the other wrote."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tiny_models import chain

from graphprune.errors import OutputError
from graphprune.model.files import atomic
from graphprune.model.load import load
from graphprune.model.write import save, write_bytes_atomically

PLAN = b"{}"


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def write(folder: Path, *, force: bool = False) -> None:
    """Write a model and its plan."""
    save(load(chain("m = Relu (h)")), folder / "m.onnx", force=force, beside={folder / "m.plan.json": PLAN})


def test_both_are_written(tmp_path: Path) -> None:
    write(tmp_path)
    assert names(tmp_path) == ["m.onnx", "m.plan.json"]
    assert (tmp_path / "m.plan.json").read_bytes() == PLAN


@pytest.mark.parametrize("force", [False, True])
def test_a_plan_that_does_not_fit_on_the_disk_leaves_both_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, force: bool
) -> None:
    if force:
        for name in ("m.onnx", "m.plan.json"):
            (tmp_path / name).write_bytes(b"old")
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if bytes(data) == PLAN:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    monkeypatch.setattr(atomic.os, "write", full)
    with pytest.raises(OutputError, match=r"m\.plan\.json' cannot be written: No space"):
        write(tmp_path, force=force)
    assert names(tmp_path) == (["m.onnx", "m.plan.json"] if force else [])
    assert all(path.read_bytes() == b"old" for path in tmp_path.iterdir())


def test_both_are_complete_before_the_first_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fill, commit = atomic.PendingFile.fill, atomic.PendingFile.commit

    def filled(pending: atomic.PendingFile, content: Any) -> None:
        fill(pending, content)
        calls.append(f"fill {pending.target.name}")

    def committed(pending: atomic.PendingFile, **options: Any) -> None:
        commit(pending, **options)
        calls.append(f"name {pending.target.name}")

    monkeypatch.setattr(atomic.PendingFile, "fill", filled)
    monkeypatch.setattr(atomic.PendingFile, "commit", committed)
    write(tmp_path)
    assert calls == ["fill m.onnx", "fill m.plan.json", "name m.onnx", "name m.plan.json"]


def test_a_plan_that_somebody_writes_in_the_meantime_stays_and_the_model_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = atomic.PendingFile.commit

    def late(pending: atomic.PendingFile, **options: Any) -> None:
        if pending.target.suffix == ".json":
            pending.target.write_bytes(b"theirs")
        commit(pending, **options)

    monkeypatch.setattr(atomic.PendingFile, "commit", late)
    with pytest.raises(OutputError, match="written by somebody else in the meantime") as caught:
        write(tmp_path)
    assert "--force" in (caught.value.hint or "")
    assert names(tmp_path) == ["m.plan.json"]
    assert (tmp_path / "m.plan.json").read_bytes() == b"theirs"


@pytest.mark.parametrize("links", [True, False], ids=["hard-links", "no-hard-links"])
def test_of_many_writers_one_wins_and_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(atomic.os, "link", refuse)
    start = threading.Barrier(8)
    told: list[str] = []

    def run(number: int) -> None:
        start.wait()
        try:
            write_bytes_atomically(bytes([number]) * 100, tmp_path / "o.onnx", force=False)
        except OutputError as error:
            told.append(error.message)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 7
    assert names(tmp_path) == ["o.onnx"]
    content = (tmp_path / "o.onnx").read_bytes()
    assert len(content) == 100
    assert len(set(content)) == 1
