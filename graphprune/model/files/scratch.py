# SPDX-License-Identifier: Apache-2.0
"""Scratch folders: temporary folders that the next run removes where a killed one has left them.

What a child process is given, both models among it, lies in a folder. `kill -9` leaves no time to remove it, so each
folder is locked as long as its process lives: a lock ends with whoever holds it, however that ends, and cannot be
mistaken for that of another process with the same number. A folder of our own whose lock can be had is nobody's.

Where folders cannot be locked (Windows, some network file systems), none is ever taken for left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["ScratchFolder", "remove_stale", "scratch_folder"]

PREFIX: Final = "graphprune-scratch-"

_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_ATTEMPTS: Final = 100


class ScratchFolder:
    """A private folder that is locked until it is removed, which is when nobody refers to it at the latest.

    Attributes
    ----------
    path : Path
    remove : weakref.finalize
        Removes it with all that is in it.
    """

    def __init__(self) -> None:
        _sweep_once()
        for _ in range(_ATTEMPTS):
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            try:
                lock = _locked(self.path)
            except OSError:  # another run took it for left behind before it was locked, and removes it
                continue
            self.remove = weakref.finalize(self, _remove, self.path, lock)
            return
        raise OSError(f"no folder can be made in {tempfile.gettempdir()}")


def _remove(path: Path, lock: int | None) -> None:
    """Remove a folder, and give its lock back after that."""
    shutil.rmtree(path, ignore_errors=True)
    if lock is not None:
        os.close(lock)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a private folder, and remove it in the end with all that is in it."""
    folder = ScratchFolder()
    try:
        yield folder.path
    finally:
        folder.remove()


@cache
def _sweep_once() -> None:
    remove_stale(Path(tempfile.gettempdir()))


def remove_stale(root: Path) -> list[Path]:
    """Remove what killed runs of this user have left in a folder; return what it was.

    Folders of other users, links, and folders that a living process holds are not touched.
    """
    removed = []
    with contextlib.suppress(OSError):
        for entry in sorted(root.glob(f"{PREFIX}*")):
            with contextlib.suppress(OSError):
                if _is_ours(entry) and _removed(entry):
                    removed.append(entry)
    return removed


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and hasattr(os, "geteuid") and status.st_uid == os.geteuid()


def _removed(path: Path) -> bool:
    """Remove a folder if nobody holds its lock; whether that is done."""
    lock = _locked(path)
    if lock is None:
        return False
    try:
        shutil.rmtree(path)
    finally:
        os.close(lock)
    return True


def _locked(path: Path) -> int | None:
    """Lock a folder for as long as the descriptor that is returned is open; None where folders cannot be locked.

    Raises
    ------
    BlockingIOError
        If somebody else holds it.
    OSError
        If it is not there any more.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(path, _FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # this file system has no locks on folders
        os.close(descriptor)
        return None
    if not _is_still(path, descriptor):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the open folder is the one of this name: it may have been removed before it was locked."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
