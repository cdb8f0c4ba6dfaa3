# SPDX-License-Identifier: Apache-2.0
"""Low precision: types and bits are kept, scales follow, integers are masked at their zero point, mistakes are seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from quantised_models import converted, float_model, quantised

import graphprune
from graphprune import Analysis, BudgetRequest, Model
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import Plan
from graphprune.verification.deviation import few, stepped, tolerance
from graphprune.verification.verify import verify_pruned

FORMS: dict[str, Any] = {
    "float16": lambda: converted(TensorProto.FLOAT16),
    "float16 inside": lambda: converted(TensorProto.FLOAT16, keep_inputs=True),
    "bfloat16": lambda: converted(TensorProto.BFLOAT16),
    "float64": lambda: converted(TensorProto.DOUBLE, keep_inputs=True),
    "QDQ int8 per channel": lambda: quantised("QDQ"),
    "QDQ uint8 per tensor": lambda: quantised("QDQ", "QUInt8", per_channel=False),
    "QDQ uint8 per channel": lambda: quantised("QDQ", "QUInt8"),
    "QDQ int4": lambda: quantised("QDQ", "QInt4"),
    "QOperator int8 per channel": lambda: quantised("QOperator"),
    "QOperator uint8 per tensor": lambda: quantised("QOperator", "QUInt8", per_channel=False),
    "dynamic int8 per channel": lambda: quantised("dynamic"),
    "dynamic uint8 per tensor": lambda: quantised("dynamic", "QUInt8", per_channel=False),
}


def prune(proto: ModelProto, share: float = 0.5) -> tuple[Analysis, Plan, Model]:
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, BudgetRequest("flops", share))
    return analysis, plan, graphprune.apply(analysis, plan)


def tensors(proto: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in proto.graph.initializer}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_pruned_exactly(form: str) -> None:
    analysis, plan, pruned = prune(FORMS[form]())
    found = graphprune.verify(analysis, pruned, plan)
    assert found.status == "verified"
    assert found.effect > 0.01
    assert ("float32 copies" in found.note) == (form in ("bfloat16", "float64"))
    again = graphprune.analyze(graphprune.load(pruned.proto))
    kept = np.array([len(group.kept) for group in plan.groups])
    for metric in ("flops", "params", "size"):
        assert again.cost.metric(metric)(again.cost.sizes) == analysis.cost.metric(metric)(kept)


def test_all_forms_have_the_groups_of_the_float_model() -> None:
    sizes = [group.size for group in graphprune.analyze(graphprune.load(float_model())).groups]
    for make in FORMS.values():
        assert [group.size for group in graphprune.analyze(graphprune.load(make())).groups] == sizes


@pytest.mark.parametrize("form", ["float16", "bfloat16", "QDQ int8 per channel", "QDQ int4"])
def test_types_and_bits_are_kept(form: str) -> None:
    analysis, plan, pruned = prune(FORMS[form]())
    before, after = tensors(analysis.model.proto), tensors(pruned.proto)
    assert set(after) <= set(before)
    removed = {(member.initializer, member.axis): member.removed for group in plan.groups for member in group.members}
    for name, tensor in after.items():
        assert tensor.data_type == before[name].data_type
        expected = numpy_helper.to_array(before[name])
        for axis in range(expected.ndim):
            expected = np.delete(expected, list(removed.get((name, axis), ())), axis)
        assert numpy_helper.to_array(tensor).tobytes() == expected.tobytes()


def moved(tensor: TensorProto) -> TensorProto:
    """Return a tensor whose slices along the first axis stand in another order."""
    return numpy_helper.from_array(np.ascontiguousarray(np.roll(numpy_helper.to_array(tensor), 1, 0)), tensor.name)


@pytest.mark.parametrize("form", ["QDQ int8 per channel", "QOperator uint8 per tensor", "dynamic int8 per channel"])
def test_one_wrong_slice_is_seen(form: str) -> None:
    analysis, plan, pruned = prune(FORMS[form]())
    weights = [name for name, tensor in tensors(pruned.proto).items() if len(tensor.dims) and tensor.dims[0] > 4]
    assert len(weights) >= 6
    for name in weights:
        proto = ModelProto()
        proto.CopyFrom(pruned.proto)
        wrong = moved(tensors(proto)[name])
        if np.array_equal(numpy_helper.to_array(wrong), numpy_helper.to_array(tensors(proto)[name])):
            continue  # all alike: zero points
        tensors(proto)[name].CopyFrom(wrong)
        found = verify_pruned(analysis, pruned.replaced(proto), keep_mask(analysis, plan))
        assert found.status == "failed", name


@pytest.mark.parametrize(("form", "masked"), [("QDQ int8 per channel", True), ("QDQ uint8 per tensor", False)])
def test_zeros_mask_a_weight_only_where_zero_is_its_zero_point(form: str, masked: bool) -> None:
    analysis = graphprune.analyze(graphprune.load(FORMS[form]()))
    readers = [member for group in analysis.groups for member in group.members if member.role == "in"]
    assert readers
    assert {member.masked for member in readers} == {masked}


def test_saliency_is_that_of_real_numbers() -> None:
    """Stored integers fill their range in every channel; only the scale tells a strong filter from a weak one."""
    analysis = graphprune.analyze(graphprune.load(quantised("QDQ")))
    real = analysis.read("hidden_quantized")
    wanted = numpy_helper.to_array(tensors(float_model())["hidden"])
    assert np.abs(real - wanted).max() < 0.02 * np.abs(wanted).max()


BLOCKS = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[n, 8] x) => (float[n, 3] y) {
    first = DequantizeLinear (first_stored, first_scale)
    second = DequantizeLinear <axis = 0, block_size = 4> (second_stored, second_scale, second_zero)
    a = MatMul (x, first)
    b = Relu (a)
    y = MatMul (b, second)
}
"""


def blocks(elem_type: int = TensorProto.INT4, width: int = 24) -> ModelProto:
    """Return two products; the second weight has a scale for every four of the inputs that the first one makes."""
    proto = onnx.parser.parse_model(BLOCKS)
    rng = np.random.default_rng(5)
    first, second = rng.integers(-8, 8, (8, width)), rng.integers(-8, 8, (width, 3))
    entries = -(-width // 4)
    for name, values in {"first_stored": first, "second_stored": second}.items():
        proto.graph.initializer.append(helper.make_tensor(name, elem_type, values.shape, values.ravel().tolist()))
    proto.graph.initializer.append(numpy_helper.from_array(rng.random(()).astype(np.float32), "first_scale"))
    scale = rng.uniform(0.01, 0.1, (entries, 3)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(scale, "second_scale"))
    zero = rng.integers(-2, 3, (entries, 3)).ravel().tolist()
    proto.graph.initializer.append(helper.make_tensor("second_zero", elem_type, (entries, 3), zero))
    return proto


@pytest.mark.parametrize("elem_type", [TensorProto.INT4, TensorProto.INT8], ids=["int4", "int8"])
def test_blocks_stay_together(elem_type: int) -> None:
    analysis, plan, pruned = prune(blocks(elem_type))
    assert [group.size for group in analysis.groups] == [6]
    after = {name: (list(tensor.dims), tensor.data_type) for name, tensor in tensors(pruned.proto).items()}
    assert after["first_stored"] == ([8, 12], elem_type)
    assert after["second_stored"] == ([12, 3], elem_type)
    assert after["second_scale"][0] == after["second_zero"][0] == [3, 3]
    assert graphprune.verify(analysis, pruned, plan).status == "verified"


def test_blocks_that_do_not_divide_the_axis_stay() -> None:
    analysis = graphprune.analyze(graphprune.load(blocks(TensorProto.INT8, width=26)))
    assert not analysis.groups
    assert any("equal blocks" in reason.text for _, reason in analysis.resolution.freezes)


@pytest.mark.parametrize(
    "elem_type",
    [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2FNUZ, TensorProto.FLOAT4E2M1, TensorProto.UINT4],
    ids=TensorProto.DataType.Name,
)
def test_odd_numbers_of_small_values_are_cut_bit_by_bit(elem_type: int) -> None:
    proto = onnx.parser.parse_model(BLOCKS.replace("block_size = 4", "block_size = 0").replace("21", "23"))
    rng = np.random.default_rng(2)
    stored = {"first_stored": rng.integers(0, 8, (8, 9)), "second_stored": rng.integers(0, 8, (9, 3))}
    for name, values in stored.items():
        proto.graph.initializer.append(helper.make_tensor(name, elem_type, values.shape, values.ravel().tolist()))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "first_scale"))
    proto.graph.initializer.append(numpy_helper.from_array(rng.random(3).astype(np.float32), "second_scale"))
    proto.graph.node[1].input.pop()
    proto.graph.node[1].attribute[0].i = 1
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, BudgetRequest("flops", 0.4), graphprune.SolveOptions(round_to=1))
    pruned = graphprune.apply(analysis, plan)
    kept = list(plan.groups[0].kept)
    before, after = tensors(proto), tensors(pruned.proto)
    assert len(kept) == 3
    for name, axis in (("first_stored", 1), ("second_stored", 0)):
        assert after[name].data_type == elem_type
        expected = numpy_helper.to_array(before[name]).take(kept, axis)
        assert numpy_helper.to_array(after[name]).tobytes() == expected.tobytes()


def test_steps() -> None:
    """One value in a hundred may fall on the other side of a tie, and by one step only."""
    values = np.arange(200, dtype=np.uint8)
    one, many, far = values.copy(), values.copy(), values.copy()
    one[3] += 1
    many[:5] += 1
    far[3] += 2
    assert stepped(values, values) == stepped(values, one) == 0.0
    assert stepped(values, many) == 5 / 200
    assert stepped(values, far) == stepped(values, values[1:]) == np.inf
    assert few(values) == 0.01
    fine = np.linspace(-30000, 30000, 200).astype(np.int16)
    assert stepped(fine, fine + 3) == 1.0
    assert stepped(fine, fine + 4) == np.inf
    assert 0.1 < few(fine) < 1.0
    extremes = np.array([-128, 127], dtype=np.int8)
    assert stepped(extremes, extremes[::-1]) == np.inf


def test_coarse_types_on_the_way_widen_the_tolerance() -> None:
    assert tolerance(np.dtype(np.float32), 0.0) == 1e-4
    half = tolerance(np.dtype(np.float16), 0.0)
    assert half == tolerance(np.dtype(np.float32), 0.0, float(np.finfo(np.float16).eps))
    assert 5e-3 < half < 2e-2


def test_sizes_behind_operators_of_onnxruntime_stay_open() -> None:
    """Shapes of `QLinearConv` chains come from a run, also for the second input size that tells which sizes move."""
    proto = ModelProto()
    proto.CopyFrom(quantised("QOperator"))
    (flatten,) = [node for node in proto.graph.node if node.op_type == "Flatten"]
    source, result = flatten.input[0], flatten.output[0]
    index = next(at for at, node in enumerate(proto.graph.node) if node.op_type == "Flatten")
    proto.graph.node.remove(flatten)
    for value in ([0], [16]):
        name = f"size{value[0]}"
        proto.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.int64), name))
    nodes = [
        helper.make_node("Shape", [source], ["shape"]),
        helper.make_node("Gather", ["shape", "size0"], ["batch"], axis=0),
        helper.make_node("Concat", ["batch", "size16"], ["target"], axis=0),
        helper.make_node("Reshape", [source, "target"], [result]),
    ]
    for node in reversed(nodes):
        proto.graph.node.insert(index, node)
    analysis, plan, pruned = prune(proto)
    assert graphprune.verify(analysis, pruned, plan).status == "verified"
    other = graphprune.AnalyzeOptions({"image": (3, 3, 10, 10)})
    assert graphprune.analyze(graphprune.load(pruned.proto), other).shapes.dims["scores"] == (3, 6)
