# SPDX-License-Identifier: Apache-2.0
"""Pixels: arrays of images, channels last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["Painter", "Pixels"]

Pixels = npt.NDArray[np.float32]
"""Shape (images, height, width, channels), from 0 to 1."""
Painter = Callable[[np.random.Generator, int, int, int], Pixels]
"""Makes so many images of a height and width, with three channels."""
