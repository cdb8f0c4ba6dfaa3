# SPDX-License-Identifier: Apache-2.0
"""Paired timing: it runs, tells a large model from a small one, and explains what it cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphprune.cost.latency import bench
from graphprune.cost.latency.bench import paired_timing
from graphprune.errors import UnsupportedModelError

if TYPE_CHECKING:
    from pathlib import Path


def chain(width: int, dtype: int = TensorProto.FLOAT, op: str = "Relu", domain: str = "") -> bytes:
    weight = np.ones((width, 8, 3, 3), np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "w"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node(op, ["y"], ["z"], domain=domain),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", dtype, ["n", 8, 24, 24])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return model


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_SECONDS", 0.2)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL])
def test_fewer_channels_take_less_time(dtype: int) -> None:
    timing = paired_timing(chain(256, dtype), chain(4, dtype), {"x": (1, 8, 24, 24)})
    assert timing.ratio < 1
    assert timing.after < timing.before
    assert timing.pairs >= 3


def test_files_are_timed_as_well(tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    onnx.save(onnx.load_from_string(chain(8)), path)
    assert paired_timing(path, path, {"x": (1, 8, 24, 24)}).ratio > 0


@pytest.mark.parametrize(
    ("model", "shapes", "message"),
    [
        (chain(4, op="Strange", domain="custom"), {"x": (1, 8, 24, 24)}, "cannot load the model"),
        (chain(4), {}, "cannot draw an input of type"),
        (chain(4), {"x": (1, 7, 24, 24)}, "cannot run the model"),
    ],
)
def test_what_cannot_run_is_explained(model: bytes, shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        paired_timing(model, model, shapes)
