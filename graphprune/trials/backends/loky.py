# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine, started by joblib; they end when whoever started them does."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from graphprune.model.children.lifeline import follow_parent

if TYPE_CHECKING:
    from graphprune.trials.workers import Arguments, Call, Workers

__all__ = ["run"]


def run(function: Call, shared: object, calls: Sequence[Arguments], workers: Workers) -> Generator[Any]:
    """Yield what calls return as they are done."""
    from joblib import Parallel, delayed

    parallel = Parallel(
        workers.jobs,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        max_nbytes=None,
        initializer=follow_parent,
        initargs=(os.getpid(),),
    )
    yield from parallel(delayed(function)(shared, *arguments) for arguments in calls)
