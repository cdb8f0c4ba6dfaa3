# SPDX-License-Identifier: Apache-2.0
"""Files that are none: what is opened may be a pipe, and reading that waits for somebody who writes."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from graphprune.errors import InputError, quote

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_mode", "check_regular"]

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(path: Path, error: type[InputError]) -> None:
    """Refuse what a file cannot be read from; a folder, and what is not there, is left to who opens it.

    Raises
    ------
    InputError
        Of the given class, if the path leads to a pipe, a socket or a device.
    OSError, ValueError
        If it leads nowhere, or is no path.
    """
    check_mode(path.stat().st_mode, path, error)


def check_mode(mode: int, path: Path, error: type[InputError]) -> None:
    """Refuse by its mode what `check_regular` refuses."""
    for is_kind, name in _KINDS:
        if is_kind(mode):
            raise error(
                f"{quote(str(path))} is {name}, and only regular files are read",
                hint="write what comes out of it to a file, and give that",
            )
