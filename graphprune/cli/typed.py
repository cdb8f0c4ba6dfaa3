# SPDX-License-Identifier: Apache-2.0
"""What was typed: the arguments of the command that runs, for messages that say what to type next."""

from __future__ import annotations

import shlex
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["keep_typed", "typed_without"]

_TYPED: ContextVar[tuple[str, ...]] = ContextVar("arguments of graphprune", default=())


def keep_typed(arguments: Sequence[str]) -> None:
    """Remember the arguments of a command, in this context."""
    _TYPED.set(tuple(arguments))


def typed_without(options: Collection[str]) -> str:
    """Return the command as it was typed, without some options that take no value; empty where nothing was typed."""
    kept = [argument for argument in _TYPED.get() if argument not in options]
    return shlex.join(["graphprune", *kept]) if kept else ""
