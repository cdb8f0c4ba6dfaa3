# SPDX-License-Identifier: Apache-2.0
"""Scratch folders: what a killed run leaves is removed by the next one, and nothing else ever is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphprune.model.files import scratch
from graphprune.model.files.scratch import PREFIX, ScratchFolder, remove_stale, scratch_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="folders cannot be locked there, and are not swept")

HOLDER = """
import sys, time
from graphprune.model.files.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "model.onnx").write_bytes(b"a model")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_a_folder_is_there_and_then_is_not(root: Path) -> None:
    with scratch_folder() as folder:
        (folder / "model.onnx").write_bytes(b"a model")
        assert folder.parent == root
        assert folder.stat().st_mode & 0o777 == 0o700
        assert remove_stale(root) == []  # it is held
    assert list(root.iterdir()) == []


def test_a_folder_that_nobody_refers_to_any_more_is_removed(root: Path) -> None:
    folder = ScratchFolder()
    (folder.path / "values.npy").write_bytes(b"values")
    del folder
    assert list(root.iterdir()) == []


def test_what_a_killed_process_leaves_is_removed_by_the_next_run(root: Path) -> None:
    with subprocess.Popen([sys.executable, "-P", "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        left = Path(holder.stdout.readline().strip())
        assert left.parent == root
        assert remove_stale(root) == []
        assert left.exists()
        holder.kill()
    assert left.exists()
    done = subprocess.run([sys.executable, "-P", "-c", HOLDER.replace("600", "0")], check=True, capture_output=True)
    assert Path(done.stdout.decode().strip()) != left
    assert list(root.iterdir()) == []


def test_only_own_folders_of_that_name_are_removed(root: Path) -> None:
    outside = root / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"")
    (root / f"{PREFIX}link").symlink_to(outside)
    (root / f"{PREFIX}file").write_bytes(b"")
    (root / f"{PREFIX}stale").mkdir()
    (root / f"{PREFIX}stale" / "link").symlink_to(outside)
    assert remove_stale(root) == [root / f"{PREFIX}stale"]
    assert sorted(path.name for path in root.iterdir()) == [f"{PREFIX}file", f"{PREFIX}link", "outside"]
    assert (outside / "precious").exists()


def test_folders_of_other_users_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / f"{PREFIX}theirs").mkdir()
    monkeypatch.setattr(scratch.os, "geteuid", lambda: os.getuid() + 1)
    assert remove_stale(root) == []


def test_a_folder_that_is_removed_before_it_is_locked_is_made_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = scratch.tempfile.mkdtemp
    made: list[str] = []

    def swept(**options: str) -> str:
        made.append(make(**options))
        if len(made) == 1:
            assert remove_stale(root) == [Path(made[0])]
        return made[-1]

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", swept)
    with scratch_folder() as folder:
        assert len(made) == 2
        assert folder == Path(made[1])


def test_a_file_system_without_locks_keeps_its_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (root / f"{PREFIX}unknown").mkdir()
    assert remove_stale(root) == []
    with scratch_folder() as folder:
        assert folder.is_dir()
    assert [path.name for path in root.iterdir()] == [f"{PREFIX}unknown"]
