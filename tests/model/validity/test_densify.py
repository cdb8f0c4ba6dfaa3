# SPDX-License-Identifier: Apache-2.0
"""Sparse weights are read as dense ones, wherever they stand and however their indices are written."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from oracle_check import analyze, check
from tiny_models import model

from graphprune.errors import UnsafeModelError
from graphprune.model.load import load
from graphprune.model.validity.densify import densified

TEXT = "(float[2,4] x) => (float[2,3] y) { h = MatMul (x, up) r = Relu (h) y = MatMul (r, down) }"


def sparse(*, rows: bool, constant: bool) -> tuple[ModelProto, np.ndarray]:
    """Return a network whose first weight is sparse, and that weight."""
    proto = model(TEXT, {"up": (4, 8), "down": (8, 3)})
    weight = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight[np.random.default_rng(1).random(weight.shape) < 0.5] = 0
    del proto.graph.initializer[0]
    places = np.argwhere(weight) if rows else np.flatnonzero(weight)
    values = numpy_helper.from_array(weight[weight != 0], "up")
    held = helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), "up.i"), weight.shape)
    if constant:
        proto.graph.node.insert(0, helper.make_node("Constant", [], ["up"], sparse_value=held))
    else:
        proto.graph.sparse_initializer.append(held)
    return proto, weight


@pytest.mark.parametrize("rows", [False, True], ids=["linear", "rows"])
@pytest.mark.parametrize("constant", [False, True], ids=["initializer", "constant"])
def test_a_sparse_weight_is_pruned_like_a_dense_one(rows: bool, constant: bool) -> None:
    proto, weight = sparse(rows=rows, constant=constant)
    analysis = analyze(load(proto).proto)
    np.testing.assert_array_equal(analysis.read("up"), weight)
    assert analysis.grouping.sizes.tolist() == [8]
    assert check(analysis).effect > 1e-3


def test_a_small_file_cannot_ask_for_a_huge_weight() -> None:
    proto, _ = sparse(rows=False, constant=False)
    proto.graph.sparse_initializer[0].dims[:] = [1 << 20, 1 << 20]
    with pytest.raises(UnsafeModelError, match="'up' of shape"):
        load(proto)


def test_the_file_itself_is_not_changed() -> None:
    proto, _ = sparse(rows=False, constant=True)
    before = proto.SerializeToString()
    densified(proto, numpy_helper.to_array, most_bytes=1 << 20)
    assert proto.SerializeToString() == before
