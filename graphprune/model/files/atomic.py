# SPDX-License-Identifier: Apache-2.0
"""An atomic write: at every instant the target is the old file or the whole new one.

The new content goes to a hidden file beside the target, is read back, forced to disk, and takes the target's
name in one step. Whatever fails before that step leaves the target as it was and no file behind; only after a
power loss or ``kill -9`` may a file ``.graphprune-*.tmp`` remain, which can be deleted.

Documented behaviour: a target that is a symbolic link stays one, the file it points to is replaced; the
permissions of a replaced file are kept, those of a new one follow the umask; other hard links to a replaced file
keep the old content.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from graphprune.errors import GraphPruneError, OutputError, quote
from graphprune.model.files.external import reason

__all__ = [
    "PendingFile",
    "check_target",
    "holds",
    "output_errors",
    "sync_folder",
    "terminate_by_exception",
    "write_all",
]

Content = Iterable[bytes | memoryview]
"""Pieces of a file in order. Iterated twice, so a generator will not do."""

_BLOCK: Final = 1 << 20
_O_BINARY: Final = getattr(os, "O_BINARY", 0)
_O_SAFE: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | _O_BINARY
# File systems that cannot synchronise a folder say so with these.
_NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS})


class PendingFile:
    """A new file without its final name yet. Use it in a ``with`` statement, which removes what is not `commit`-ted.

    Parameters
    ----------
    target : Path
        Where the content will go; not touched before `commit`.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.parent / f".graphprune-{secrets.token_hex(8)}.tmp"
        self._descriptor: int | None = None
        self._ours = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        if self._ours:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def fill(self, content: Content) -> None:
        """Write `content`, force it to disk, and check that this is what a reader gets.

        Raises
        ------
        OSError
            If any step fails.
        """
        mode = self._old_mode()
        # The umask applies to a new file; a replaced one gets its old permissions, but not before it is complete.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _O_SAFE
        self._ours = True
        try:
            self._descriptor = os.open(self.path, flags, 0o666 if mode is None else 0o600)
        except FileExistsError:
            self._ours = False
            raise
        size = sum(write_all(self._descriptor, piece) for piece in content)
        if os.fstat(self._descriptor).st_size != size:
            raise OSError(errno.EIO, f"the file does not have the {size} bytes written")
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(self._descriptor, mode)
        os.fsync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)
        if not holds(self.path, content):
            raise OSError(errno.EIO, "the file reads back differently from what was written")

    def _old_mode(self) -> int | None:
        try:
            return stat.S_IMODE(self.target.stat().st_mode) & 0o777
        except FileNotFoundError:
            return None

    def commit(self, *, replace: bool = True) -> None:
        """Give the file its final name.

        Parameters
        ----------
        replace : bool
            Replace what has that name; otherwise it must not exist, and of two writers only one gets it.

        Raises
        ------
        FileExistsError
            If it exists and must not.
        """
        if replace:
            os.replace(self.path, self.target)  # noqa: PTH105 (Path.replace hides which call tests make fail)
        else:
            _rename_to_new(self.path, self.target)
        self._ours = False
        try:
            sync_folder(self.target.parent)
        except OSError as error:
            raise OutputError(
                f"{quote(str(self.target))} is written, but may not survive a power loss: {reason(error)}",
                hint="check the disk, then run the command again with --force",
            ) from error


def _rename_to_new(path: Path, target: Path) -> None:
    """Rename a file to a name that nothing has, in one step; somebody else may have taken it since it was looked at."""
    if os.name == "nt":
        path.rename(target)  # does not replace there
        return
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: claim the name, then replace what is one's own
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _O_SAFE, 0o600))
        os.replace(path, target)  # noqa: PTH105
    else:
        path.unlink()


def write_all(descriptor: int, piece: bytes | memoryview) -> int:
    """Write all of `piece` and return its size in bytes."""
    view = memoryview(piece)
    position = 0
    while position < len(view):
        written = os.write(descriptor, view[position : position + 64 * _BLOCK])
        if written <= 0:
            raise OSError(errno.EIO, "nothing could be written")
        position += written
    return len(view)


def holds(path: Path, content: Content) -> bool:
    """Return whether `path` is a regular file with exactly this content."""
    descriptor = os.open(path, os.O_RDONLY | _O_SAFE | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        block = bytearray(_BLOCK)
        for piece in content:
            view = memoryview(piece)
            for start in range(0, len(view), _BLOCK):
                expected = view[start : start + _BLOCK]
                if len(expected) != len(block):
                    block = bytearray(len(expected))
                # The bytearray stands on the left: it compares whole blocks, a memoryview goes byte by byte.
                if file.readinto(block) != len(expected) or block != expected:
                    return False
        return not file.read(1)


def sync_folder(folder: Path) -> None:
    """Force the names in `folder` to disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def check_target(path: Path, *, force: bool, inputs: Iterable[Path] = ()) -> Path:
    """Return the file to replace or make for the output `path`, links resolved.

    Parameters
    ----------
    path : Path
        Where the user wants the result.
    force : bool
        Whether an existing file may be replaced.
    inputs : Iterable[Path]
        Files that are never replaced, under whatever name and through whatever link.

    Raises
    ------
    OutputError
        If the path cannot be written to, or must not be.
    """
    shown = quote(str(path))
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        what = "is not a folder" if target.parent.exists() else "does not exist"
        raise OutputError(f"{shown} cannot be written: its folder {what}", hint="make the folder first")
    try:
        status = target.lstat()
    except FileNotFoundError:
        return target
    if stat.S_ISLNK(status.st_mode):
        raise OutputError(f"{shown} cannot be written: its links form a loop")
    if stat.S_ISDIR(status.st_mode):
        raise OutputError(f"{shown} is a folder", hint="give the name of a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"{shown} is not a regular file (a pipe, socket or device)")
    for source in inputs:
        with contextlib.suppress(OSError):
            if os.path.samestat(source.stat(), status):
                raise OutputError(
                    f"{shown} is the input file itself; inputs are never changed",
                    hint="choose another name for the result",
                )
    if not force:
        raise OutputError(f"{shown} exists", hint="give --force (force=True) to replace it")
    return target


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn whatever the system raises while `path` is written into an `OutputError`."""
    try:
        yield
    except GraphPruneError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"{quote(str(path))} cannot be written: {reason(error)}") from error


@contextlib.contextmanager
def terminate_by_exception() -> Iterator[None]:
    """Let SIGTERM unwind the stack like Ctrl-C does, so that files are cleaned up, unless the program handles it."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    handled = threading.current_thread() is not threading.main_thread()
    if handled or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
