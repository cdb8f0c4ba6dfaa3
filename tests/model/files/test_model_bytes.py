# SPDX-License-Identifier: Apache-2.0
"""The bytes of a model in pieces are those that protobuf writes, and no piece is much larger than a tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from tiny_models import chain

import graphprune
from graphprune.errors import OutputError
from graphprune.model.files import model_bytes
from graphprune.model.files.model_bytes import ModelBytes
from graphprune.model.load import load


def _rich() -> ModelProto:
    """Return a model with a field of every kind, known and unknown, around its tensors."""
    proto = chain("m = Relu (h)")
    proto.producer_name, proto.graph.doc_string = "a producer", "a text"
    helper.set_model_props(proto, {"key": "value"})
    proto.graph.value_info.append(helper.make_tensor_value_info("m", 1, [2, 8, 6, 6]))
    proto.functions.append(
        helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], proto.opset_import)
    )
    unknown = b"\xfa\xff\x01\x03new"
    proto.MergeFromString(unknown)
    proto.graph.MergeFromString(unknown)
    proto.graph.initializer[0].MergeFromString(unknown)
    return proto


def _bare() -> ModelProto:
    return helper.make_model(helper.make_graph([], "bare", [], []))


@pytest.mark.parametrize("proto", [chain("m = Relu (h)"), _rich(), _bare(), ModelProto(ir_version=8), ModelProto()])
def test_all_together_they_are_what_protobuf_writes(proto: ModelProto) -> None:
    content = ModelBytes(proto)
    assert b"".join(content) == proto.SerializeToString()
    assert content.count() == proto.ByteSize()
    assert b"".join(content) == proto.SerializeToString()  # as whoever checks what was written reads them again


def test_no_piece_holds_several_large_tensors() -> None:
    proto = chain("m = Relu (h)")
    for number in range(8):
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 16, np.float32), f"w{number}"))
    assert max(map(len, ModelBytes(proto))) < 1.1 * 4 * (1 << 16)


def test_what_protobuf_could_not_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_bytes, "MOST_BYTES", 100)
    with pytest.raises(OutputError, match="too large or too deep"):
        graphprune.save(load(chain("m = Relu (h)")), tmp_path / "large.onnx")
    assert not list(tmp_path.iterdir())


def test_models_are_written_that_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on the way to the written file serialises a model at once."""
    proto = chain("m = Relu (h)")
    model = load(proto)
    analysis = graphprune.analyze(model)
    plan = graphprune.solve(analysis, [graphprune.BudgetRequest("flops", 0.7)])
    pruned = graphprune.apply(analysis, plan)
    whole: list[ModelBytes] = []
    pieces = ModelBytes.__iter__
    monkeypatch.setattr(ModelBytes, "__iter__", lambda self: whole.append(self) or pieces(self))
    graphprune.verify(analysis, pruned, plan)
    graphprune.save(pruned, tmp_path / "pruned.onnx")
    assert {id(content.proto) for content in whole} == {id(pruned.proto)}
