# SPDX-License-Identifier: Apache-2.0
"""The former name of :class:`graphprune.training.pruning.run.Run`, for methods of other packages; for one release."""

from __future__ import annotations

import warnings

from graphprune.training.pruning.run import Run

__all__ = ["Course"]

Course = Run

warnings.warn(
    "graphprune.training.pruning.course.Course is graphprune.training.pruning.run.Run now; the next release drops the "
    "old name",
    DeprecationWarning,
    stacklevel=2,
)
