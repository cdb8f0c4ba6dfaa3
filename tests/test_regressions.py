# SPDX-License-Identifier: Apache-2.0
"""Models on which something was once wrong, as small as they can be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from fast_oracle import compare
from onnx import ModelProto, helper
from tiny_models import chain, model

from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load
from graphprune.surgery.prune import prune


def pruned(proto: ModelProto, *removed: int) -> tuple[Analysis, ModelProto]:
    """Remove atoms, and assert that the rest equals the masked original."""
    analysis = Analysis(load(proto))
    keep = np.ones(len(analysis.grouping.group_of), dtype=np.bool_)
    keep[list(removed)] = False
    result = prune(analysis, keep)
    onnx.checker.check_model(result, full_check=True)
    compare(analysis, keep, result)
    return analysis, result


def test_an_index_behind_the_kept_slices_is_moved() -> None:
    # Modulo the two kept slices, index 2 looked like the index 0 that it has to become.
    text = """(float[1,1,6,6] x) => (float[] y) {
        h = Conv (x, first)
        s = Gather <axis = 1> (h, index)
        c = Conv <pads = [1, 1]> (s, w2)
        y = ReduceSum <keepdims = 0> (c, last)
    }"""
    weights = {"first": (4, 1, 1, 1), "w2": (1, 6, 3)}
    proto = model(text, weights, index=np.asarray(2, dtype=np.int64), last=[1])
    _, result = pruned(proto, 0, 1)
    gather = next(node for node in result.graph.node if node.op_type == "Gather")
    index = next(tensor for tensor in result.graph.initializer if tensor.name == gather.input[1])
    assert onnx.numpy_helper.to_array(index) == 0


@pytest.mark.parametrize("opset", [13, 17])
def test_an_implied_split_that_is_no_longer_even_names_its_sizes(opset: int) -> None:
    # Before operator set 18 a split without sizes must be even: 3 of 4 channels left are 2 and 1, but must be said.
    proto = chain("a, b = Split <axis = 1> (h)\nm = Concat <axis = 1> (a, b)", width=4, opset=opset)
    _, result = pruned(proto, 3)
    split = next(node for node in result.graph.node if node.op_type == "Split")
    assert len(split.input) == 2


def declared(proto: ModelProto) -> ModelProto:
    """Write a model in the form of IR version 3, in which every initializer is a graph input too."""
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in proto.graph.initializer
    )
    return proto


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_new_sizes_in_an_old_model_are_no_new_inputs(opset: int) -> None:
    # Before operator set 9 a Constant node cannot hold integers, and full_check refused what was written.
    proto = declared(
        chain("f = Reshape (h, flat)\nm = Reshape (f, back)", opset=opset, flat=[2, 288], back=[2, 8, 6, 6])
    )
    analysis, result = pruned(proto, 1, 2)
    assert [value.name for value in result.graph.input] == [value.name for value in proto.graph.input]
    again = Analysis(load(result))
    assert analysis.cost.params(np.asarray([6])) == again.cost.params(again.grouping.sizes)


def test_a_single_slice_of_padding_may_go() -> None:
    # One new slice got the label of an axis of length 1, and froze the channels that it is added to.
    proto = chain(
        "p = Pad (h, pads)\nr = Conv (x, other)\nm = Add (p, r)",
        {"other": (6, 3, 1, 1)},
        width=4,
        after=6,
        pads=[0, 1, 0, 0, 0, 1, 0, 0],
    )
    analysis = Analysis(load(proto))
    assert analysis.grouping.sizes.tolist() == [4, 2]
    pruned(proto, 0, 4)


def test_a_constant_read_twice_in_the_same_way_counts_once() -> None:
    # The labels of a repeated axis are stored compressed: equal slices, written in two ways, counted as two copies.
    middle = "t = Tile (h, twice)\nr = Conv (x, other)\na = Add (t, k)\nb = Add (r, k)\nm = Add (a, b)"
    proto = chain(middle, {"other": (4, 3, 1, 1), "k": (4, 1, 1)}, width=2, after=4, twice=[1, 2, 1, 1])
    analysis, result = pruned(proto, 0)
    assert all(member.masked for group in analysis.groups for member in group.members)
    again = Analysis(load(result))
    assert analysis.cost.params(np.asarray([1])) == again.cost.params(again.grouping.sizes)
