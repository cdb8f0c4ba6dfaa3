# SPDX-License-Identifier: Apache-2.0
"""A trial: what may take any time and memory runs in a process with limits once, before this process runs it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from graphprune.model.children.bounded import unbounded_operators
from graphprune.model.sizes.lengths import fitting_values
from graphprune.model.sizes.observation import NoneRunsError, Told, observe

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis

__all__ = ["try_in_child"]


def try_in_child(analysis: Analysis) -> None:
    """Run a network in a child process where its operators do not bound what a run takes.

    For networks that nobody has vouched for yet, as those do who give samples of their own.

    Raises
    ------
    UnsafeModelError
        If a run takes more memory or time than a model of this size may.
    """
    if unbounded_operators(analysis.model.proto):
        told = Told([fitting_values(analysis.graph, analysis.shapes)], analysis.shapes.dims)
        with suppress(NoneRunsError):  # then it does not run here either, which says why
            observe(analysis.model, analysis.graph, [analysis.input_shapes], [], told)
