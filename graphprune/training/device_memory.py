# SPDX-License-Identifier: Apache-2.0
"""Memory of the device that trains: where it does not suffice, that is said, and what may help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from graphprune.errors import UsageError, quote

__all__ = ["enough_memory"]

_SAID: Final = ("out of memory", "can't allocate memory")
"""How devices say it whose errors have no type of their own."""


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn what torch raises where a device has no memory left into an error that says what to do.

    Raises
    ------
    UsageError
        With the first line of what torch says.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(text in str(error) for text in _SAID):
            raise
        first = str(error).strip().split("\n")[0]
        raise UsageError(
            f"the device that trains has too little memory: {quote(first)}",
            hint="take fewer samples a step (--batch), or another --device; --resume goes on from what was saved",
        ) from error
