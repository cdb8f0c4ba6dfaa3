# SPDX-License-Identifier: Apache-2.0
"""The lifeline of a child process: it ends when its parent does, however that ends.

A child that runs an endless loop in onnxruntime would outlive a parent that is killed, and nobody would know of it. On
Linux the kernel kills it. Everywhere a thread waits as well, for the end of a pipe whose other end only the parent
holds; that also covers a parent that ended before the kernel was asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["end_with_parent", "follow_parent", "follow_pipe"]

_PR_SET_PDEATHSIG: Final = 1
_PERIOD: Final = 0.5
_ORPHANED: Final = 1


def follow_pipe(descriptor: int) -> None:
    """End this process as soon as the pipe does, or as its parent is killed.

    Parameters
    ----------
    descriptor : int
        The end to read from. What is still in it is thrown away.
    """

    def drained() -> None:
        while os.read(descriptor, 1 << 12):
            pass

    _end_after(drained)


def follow_parent(parent: int) -> None:
    """End this process, which some library started, as soon as the process with that number is no more its parent.

    Parameters
    ----------
    parent : int
        What `os.getpid` gave in the parent.
    """

    def orphaned() -> None:
        while os.getppid() == parent:
            time.sleep(_PERIOD)

    _end_after(orphaned)


def end_with_parent() -> None:
    """Let the kernel end this process, and a program that it becomes, with its parent; nothing where it cannot."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a libc without it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _end_after(waited: Callable[[], object]) -> None:
    end_with_parent()

    def watch() -> None:
        waited()
        os._exit(_ORPHANED)  # threads of onnxruntime would keep an orderly exit waiting

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
