# SPDX-License-Identifier: Apache-2.0
"""Grains: how coarse the numbers are of which a value is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from graphprune.model.widen_floats import HALVES

if TYPE_CHECKING:
    from graphprune.analysis.analysis import Analysis

__all__ = ["Grains"]


class Grains:
    """The coarsest float type on the way to each value, as its relative precision: a cast does not make it finer."""

    def __init__(self, analysis: Analysis, *, widened: bool) -> None:
        self._widened = widened
        self._dtypes = analysis.shapes.dtypes
        self._coarsest: dict[str, float] = {}
        for node in analysis.graph.nodes:
            if not all(name in analysis.shapes.constant for name in node.outputs):
                before = max((self.of(name) for name in (*node.inputs, *node.captured)), default=0.0)
                self._coarsest.update((name, max(before, self._own(name))) for name in node.outputs)
        self.coarsest = max((self.of(name) for name in (*analysis.graph.inputs, *self._coarsest)), default=0.0)

    def of(self, name: str) -> float:
        """Return the precision of a value, 0 where it is no float."""
        return self._coarsest.get(name, self._own(name))

    def _own(self, name: str) -> float:
        elem_type = self._dtypes.get(name, TensorProto.UNDEFINED)
        return float(np.finfo(np.float32 if self._widened else np.float16).eps) if elem_type in HALVES else 0.0
