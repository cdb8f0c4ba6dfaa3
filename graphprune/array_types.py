# SPDX-License-Identifier: Apache-2.0
"""The types of arrays that signatures name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Floats", "Floats32", "Ints", "Mask"]

Array = npt.NDArray[Any]
"""Of whatever a model stores or computes."""
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
"""True for what stays, unless a docstring says otherwise."""
