# SPDX-License-Identifier: Apache-2.0
"""Planning: what is refused before anything is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper
from tiny_models import model

import graphprune
from graphprune import BudgetRequest
from graphprune.errors import UnsupportedModelError

TEXT = """(float[1,3,6,6] x) => (float[1,2,6,6] y) {
    h = Conv (x, first)
    y = Conv (h, last)
}"""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    proto = model(TEXT, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)})
    (first,) = (tensor for tensor in proto.graph.initializer if tensor.name == "first")
    weights = numpy_helper.to_array(first).copy()
    weights[3, 0] = value
    first.CopyFrom(numpy_helper.from_array(weights, "first"))
    loaded = graphprune.load(proto)
    with pytest.raises(UnsupportedModelError, match="'first'"):
        graphprune.solve(loaded, BudgetRequest("flops", 0.5))
