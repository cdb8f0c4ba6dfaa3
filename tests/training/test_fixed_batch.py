# SPDX-License-Identifier: Apache-2.0
"""Files made for batches of one size learn from batches of any, unless sizes inside of them stand against it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from pruning_cases import KINDS, labelled, tokens_first, trained

import graphprune
from graphprune.errors import UsageError
from graphprune.solvers.training.fbs import Fbs


def fixed(proto: ModelProto) -> ModelProto:
    """Let inputs and outputs say that there is one sample."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return proto


def test_a_fixed_batch_that_only_the_inputs_know() -> None:
    found = trained(fixed(KINDS["depthwise"]()), Fbs(), labelled())
    for model in (found.model, found.further["gated"]):
        assert model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert graphprune.verify(found.analysis, graphprune.apply(found.analysis, found.plan), found.plan).ok


def test_sizes_inside_that_hold_the_batch() -> None:
    proto = fixed(tokens_first())
    for tensor in proto.graph.initializer:
        if tensor.name in ("to_heads", "apart"):
            sizes = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.where(sizes < 0, 1, sizes), tensor.name))
    with pytest.raises(UsageError, match="batches of 1 only"):
        trained(proto, Fbs(), labelled())
