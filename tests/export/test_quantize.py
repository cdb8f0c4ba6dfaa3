# SPDX-License-Identifier: Apache-2.0
"""Quantisation after pruning: near the float network, guarded, and prunable again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from source_tree import ROOT

import graphprune
from graphprune.errors import NotImprovedError, UsageError
from graphprune.export.int8 import has_saturating_products
from graphprune.export.quantize import QuantizeOptions
from graphprune.surgery.marks import weights_changed

EXAMPLE = ROOT / "examples" / "digits.onnx"
IMAGES = ROOT / "examples" / "digits_test.npz"


@pytest.fixture(scope="module")
def original() -> graphprune.Model:
    return graphprune.load(EXAMPLE)


@pytest.fixture(scope="module")
def data(original: graphprune.Model) -> graphprune.Source:
    return graphprune.open_data(str(IMAGES), original)


@pytest.fixture(scope="module")
def recovered(original: graphprune.Model, data: graphprune.Source) -> graphprune.Model:
    plan = graphprune.solve(original, flops=0.5)
    return graphprune.recover(original, graphprune.apply(original, plan), plan, data.limited(256)).model


@pytest.mark.parametrize(("precision", "share"), [("int8", 0.5), ("fp16", 0.6)])
def test_a_pruned_network_stays_as_good(
    recovered: graphprune.Model, data: graphprune.Source, precision: str, share: float
) -> None:
    options = QuantizeOptions(precision, samples=128)  # type: ignore[arg-type]
    result = graphprune.quantize(recovered, data, options)
    assert result.floating == () and result.error == result.whole_error < 0.01
    assert result.size[1] < share * result.size[0]
    before, after = (graphprune.evaluate(each, data).top1 or 0.0 for each in (recovered, result.model))
    assert before > 0.9
    assert after > before - 0.01


def test_what_loses_most_stays_float(original: graphprune.Model, data: graphprune.Source) -> None:
    proto = onnx.load(EXAMPLE)
    loud = {"stages.0.bn1.weight": 3000.0, "stages.0.bn1.bias": 3000.0, "stages.0.conv2.weight": 1 / 3000}
    for tensor in proto.graph.initializer:  # the same network, but one channel takes the precision of all others
        if tensor.name in loud:
            values = numpy_helper.to_array(tensor).copy()
            values[(slice(None),) * (values.ndim > 1) + (0,)] *= loud[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    uneven = graphprune.load(proto)
    few = data.limited(64)
    assert graphprune.evaluate(uneven, few, original).output_error == pytest.approx(0.0, abs=1e-6)
    result = graphprune.quantize(uneven, few, QuantizeOptions(limit=0.01))
    assert result.whole_error > 0.05
    assert 1 < len(result.floating) < result.parts
    assert any("stages.0/conv1" in name or "stages.0/conv2" in name for name in result.floating)
    assert result.error < 0.01
    with pytest.raises(NotImprovedError, match="nothing was written"):
        graphprune.quantize(original, few, QuantizeOptions(limit=1e-12))


def test_weights_of_seven_bits_are_smaller_numbers(recovered: graphprune.Model, data: graphprune.Source) -> None:
    largest = {}
    for reduced in (False, True):
        result = graphprune.quantize(recovered, data.limited(8), QuantizeOptions(reduce_range=reduced, limit=1.0))
        assert result.reduce_range == reduced
        stored = (result.model.tensors.array(tensor) for tensor in result.model.proto.graph.initializer)
        largest[reduced] = max(int(np.abs(array.astype(int)).max()) for array in stored if array.dtype == np.int8)
    assert largest == {False: 127, True: 64}


def test_a_quantised_file_is_pruned_like_any_other(recovered: graphprune.Model, data: graphprune.Source) -> None:
    quantised = graphprune.quantize(recovered, data.limited(32), QuantizeOptions(limit=1.0)).model
    plan = graphprune.solve(quantised, flops=0.6)
    pruned = graphprune.apply(quantised, plan)
    assert weights_changed(quantised.proto).endswith("quantized: int8")
    assert not weights_changed(pruned.proto)
    assert graphprune.verify(quantised, pruned, plan).status == "verified"


def test_what_cannot_be_done_is_refused(recovered: graphprune.Model, data: graphprune.Source) -> None:
    quantised = graphprune.quantize(recovered, data.limited(8), QuantizeOptions(limit=1.0)).model
    with pytest.raises(UsageError, match="quantised already"):
        graphprune.quantize(quantised, data)
    with pytest.raises(UsageError, match="1 samples"):
        graphprune.quantize(recovered, data.limited(1))
    with pytest.raises(UsageError, match="must be one of int8, fp16"):
        QuantizeOptions("int4")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="larger than 0"):
        QuantizeOptions(limit=0.0)


@pytest.mark.parametrize(
    ("flags", "saturating"), [("fpu avx2", True), ("avx512f avx512_vnni", False), ("avx2 avx_vnni", False)]
)
def test_which_processors_saturate(flags: str, saturating: bool) -> None:
    assert has_saturating_products(f"model name\t: A\nflags\t\t: {flags}\nbugs\t: avx_vnni\n") == saturating
