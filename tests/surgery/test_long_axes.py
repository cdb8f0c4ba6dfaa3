# SPDX-License-Identifier: Apache-2.0
"""Axes of a length that no memory holds: those that stay whole cost nothing, those with channels are refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from bad_files import set_attribute, small_model
from onnx import TensorProto, helper, numpy_helper

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.errors import UnsafeModelError
from graphprune.labels.vector import MOST_SLICES, Digit, Labels, concatenate, pairs, stay
from graphprune.model.evaluation import proportion
from graphprune.model.load import load
from graphprune.surgery.prune import prune

HUGE = 10**9


@pytest.fixture(autouse=True)
def _values_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sizes through that are refused for small networks, so that what follows meets them."""
    monkeypatch.setattr(proportion, "_INFLATED", 1 << 60)


def test_a_padding_of_a_thousand_million_costs_nothing() -> None:
    proto = small_model()
    set_attribute(proto, 2, pads=[0, HUGE, 0, HUGE])
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    tracemalloc.start()
    analysis = Analysis(load(proto))
    keep = np.arange(len(analysis.grouping.group_of)) % 2 == 0
    pruned = prune(analysis, keep)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20
    assert [tuple(tensor.dims) for tensor in pruned.graph.initializer] == [(4, 3, 3, 3), (4,), (4, 4, 1, 1)]


def test_what_no_machine_can_run_is_refused() -> None:
    proto = small_model()
    set_attribute(proto, 2, pads=[HUGE] * 4)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UnsafeModelError, match=r"value 'y' of shape .* has more elements than the limit"):
        api.analyze(api.load(proto))


def test_channels_that_are_flattened_with_a_huge_image() -> None:
    proto = small_model()
    set_attribute(proto, 0, pads=[HUGE // 10, 0, HUGE // 10, 0])
    proto.graph.node[1].CopyFrom(helper.make_node("Flatten", ["a"], ["r"]))
    del proto.graph.node[2:]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("r", TensorProto.FLOAT, None))
    assert not api.analyze(api.load(proto)).groups  # all reach the output


def test_channels_that_are_padded_with_a_thousand_million() -> None:
    proto = small_model()
    proto.graph.node[1].CopyFrom(helper.make_node("Pad", ["a", "amounts"], ["r"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0, HUGE, 0, 0, 0, 0, 0, 0]), "amounts"))
    del proto.graph.node[2:]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("r", TensorProto.FLOAT, None))
    with pytest.raises(UnsafeModelError, match="slices, more than the limit"):
        api.analyze(api.load(proto))


def test_vectors_are_written_out_within_a_limit() -> None:
    channels = np.arange(1, 17)
    with pytest.raises(UnsafeModelError, match=f"{16 * HUGE} slices, more than the limit {MOST_SLICES}"):
        Labels(channels, HUGE).expand()
    with pytest.raises(UnsafeModelError):
        len(Labels(channels, HUGE, HUGE))
    with pytest.raises(UnsafeModelError):
        concatenate([Labels(channels, HUGE), stay(1)])
    assert len(stay(HUGE).select(slice(5, None, 2))) == (HUGE - 5 + 1) // 2
    assert Labels(channels, HUGE).spread(np.ones(16, dtype=np.bool_)).strides == (0,)


def test_digits_with_no_common_period() -> None:
    with pytest.raises(UnsafeModelError):
        pairs(Digit(1, 65521), Digit(1, 65519))
