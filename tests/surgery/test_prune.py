# SPDX-License-Identifier: Apache-2.0
"""Surgery: what changes in the file, what does not, and where slices are taken from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser
from oracle_check import Outcome, analyze, check, halves
from tiny_models import chain, model

from graphprune.surgery.prune import prune

KEEP = np.array([True, False, True, True, False, False, True, False])
PLAIN = chain("m = Conv <pads = [1, 1, 1, 1]> (h, middle, b)", {"middle": (8, 8, 3, 3), "b": (8,)})


def _arrays(proto: ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def test_slices_are_those_of_the_original() -> None:
    keep = np.concatenate([KEEP, ~KEEP])
    before, after = _arrays(PLAIN), _arrays(check(PLAIN, keep).pruned)
    np.testing.assert_array_equal(after["first"], before["first"][KEEP])
    np.testing.assert_array_equal(after["middle"], before["middle"][~KEEP][:, KEEP])
    np.testing.assert_array_equal(after["b"], before["b"][~KEEP])
    np.testing.assert_array_equal(after["last"], before["last"][:, ~KEEP])


def test_the_original_is_not_touched() -> None:
    before = PLAIN.SerializeToString(deterministic=True)
    check(PLAIN)
    assert PLAIN.SerializeToString(deterministic=True) == before


def test_keeping_everything_changes_nothing() -> None:
    analysis = analyze(PLAIN)
    pruned = prune(analysis, np.ones(16, dtype=np.bool_))
    assert pruned.SerializeToString(deterministic=True) == PLAIN.SerializeToString(deterministic=True)


# weights behind other nodes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape", "constants"),
    [
        pytest.param("w = Identity (raw)", (8, 8, 1, 1), {}, id="identity"),
        pytest.param("w = Transpose <perm = [1, 0, 2, 3]> (raw)", (8, 8, 1, 1), {}, id="transpose"),
        pytest.param("w = Unsqueeze (raw, at)", (8, 8), {"at": [2, 3]}, id="unsqueeze"),
        pytest.param("w = Reshape (raw, to)", (8, 8), {"to": [8, 8, 1, 1]}, id="reshape"),
        pytest.param("i = Identity (raw)\n w = Transpose <perm = [1, 0, 2, 3]> (i)", (8, 8, 1, 1), {}, id="chain"),
    ],
)
def test_stored_weights_are_sliced_behind_layout(text: str, shape: tuple[int, ...], constants: dict[str, Any]) -> None:
    outcome = check(chain(f"{text}\n m = Conv (h, w)", {"raw": shape}, **constants))
    assert [node.op_type for node in outcome.pruned.graph.node] == [
        node.op_type for node in outcome.analysis.graph.proto.graph.node
    ]
    assert sorted(_arrays(outcome.pruned)["raw"].shape)[-2:] == [4, 4]
    assert {m.initializer for g in outcome.analysis.groups for m in g.members} == {"first", "raw", "last"}


def test_a_weight_behind_a_cast_keeps_its_type() -> None:
    raw = np.random.default_rng(0).standard_normal((8, 8, 1, 1))
    outcome = check(chain("w = Cast <to = 1> (raw)\n m = Conv (h, w)", raw=raw))
    stored = _arrays(outcome.pruned)["raw"]
    assert (stored.dtype, stored.shape) == (np.float64, (4, 4, 1, 1))


def test_a_weight_in_a_constant_node_is_sliced_there() -> None:
    proto = chain("m = Conv (h, w)", {"w": (8, 8, 1, 1)})
    tensor = next(t for t in proto.graph.initializer if t.name == "w")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], name="stored", value=tensor))
    del proto.graph.initializer[[t.name for t in proto.graph.initializer].index("w")]
    outcome = check(proto)
    node = outcome.pruned.graph.node[0]
    assert (node.op_type, node.name) == ("Constant", "stored")
    assert list(node.attribute[0].t.dims) == [4, 4, 1, 1]


def test_a_computed_weight_is_stored_as_a_value() -> None:
    outcome = check(chain("w = Mul (raw, scale)\n m = Conv (h, w)", {"raw": (8, 8, 1, 1), "scale": (8, 1, 1, 1)}))
    assert [node.op_type for node in outcome.pruned.graph.node] == ["Conv", "Conv", "Conv"]
    assert len(outcome.pruned.graph.initializer) == 3


# shared tensors -------------------------------------------------------------------------------


def test_equal_biases_merged_by_an_exporter_are_parted() -> None:
    """One initializer, two convolutions that keep different channels: no slice of it fits both."""
    proto = chain("a = Conv (h, one, b)\n m = Conv (a, two, b)", {"one": (8, 8, 1, 1), "two": (8, 8, 1, 1), "b": (8,)})
    keep = np.concatenate([np.ones(8, dtype=np.bool_), KEEP, np.arange(8) < 3])
    outcome = check(proto, keep)
    before, after = _arrays(proto), _arrays(outcome.pruned)
    first, second = (node.input[2] for node in outcome.pruned.graph.node if len(node.input) > 2)
    assert first != second
    np.testing.assert_array_equal(after[first], before["b"][KEEP])
    np.testing.assert_array_equal(after[second], before["b"][:3])


def test_a_shared_constant_stays_for_whom_it_stays() -> None:
    proto = chain("a = Conv (h, one, b)\n m = Conv (a, two, b)", {"one": (8, 8, 1, 1), "two": (8, 8, 1, 1), "b": (8,)})
    keep = np.concatenate([np.ones(16, dtype=np.bool_), KEEP])
    outcome = check(proto, keep)
    first, second = (node.input[2] for node in outcome.pruned.graph.node if len(node.input) > 2)
    assert first == "b"
    assert _arrays(outcome.pruned)["b"].shape == (8,)
    assert _arrays(outcome.pruned)[second].shape == (4,)


def test_shared_weights_couple_their_users() -> None:
    proto = chain("a = Conv (h, w)\n r = Relu (a)\n m = Conv (r, w)", {"w": (8, 8, 1, 1)})
    outcome = check(proto)
    (group,) = outcome.analysis.groups
    assert group.size == 8
    assert _arrays(outcome.pruned)["w"].shape == (4, 4, 1, 1)


def test_new_names_do_not_collide_when_a_pruned_model_is_pruned_again() -> None:
    proto = chain("a = Conv (h, one, b)\n m = Conv (a, two, b)", {"one": (8, 8, 1, 1), "two": (8, 8, 1, 1), "b": (8,)})
    first = check(proto).pruned
    names = [tensor.name for tensor in check(first, seed=3).pruned.graph.initializer]
    assert len(names) == len(set(names))


# old files ------------------------------------------------------------------------------------


def _with_inputs(proto: ModelProto, ir_version: int) -> ModelProto:
    """Declare all initializers as graph inputs, as files of IR version 3 must."""
    proto.ir_version = ir_version
    proto.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in proto.graph.initializer
    )
    return proto


@pytest.mark.parametrize("ir_version", [3, 8])
def test_initializers_that_are_inputs_too_shrink_in_both_places(ir_version: int) -> None:
    text = "r = Reshape (h, to)\n s = Relu (r)\n m = Reshape (s, back)"
    proto = _with_inputs(chain(text, opset=8, to=[2, 8, 36], back=[2, 8, 6, 6]), ir_version)
    pruned = check(proto).pruned
    declared = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in pruned.graph.input if v.name != "x"
    }
    stored = {t.name: tuple(t.dims) for t in pruned.graph.initializer}
    assert declared["first"] == stored["first"] == (4, 3, 1, 1)
    assert declared["last"] == stored["last"] == (2, 4, 1, 1)
    if ir_version == 3:
        assert set(stored) <= set(declared)
        # Constants of operator set 8 hold floats alone.
        assert [node.op_type for node in pruned.graph.node][:4] == ["Constant", "Cast"] * 2


def test_local_functions_are_inlined() -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "local": 1]>
        tiny (float[2,3,6,6] x) => (float[2,2,6,6] y) {
            h = Conv (x, first)
            m = local.twice (h, middle)
            y = Conv (m, last)
        }
        <domain: "local", opset_import: ["": 17]>
        twice (a, w) => (c) { b = Conv (a, w) r = Relu (b) c = Conv (r, w) }"""
    )
    random = np.random.default_rng(0)
    for name, shape in {"first": (8, 3, 1, 1), "middle": (8, 8, 1, 1), "last": (2, 8, 1, 1)}.items():
        array = random.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    outcome = check(proto)
    assert not outcome.pruned.functions
    assert [node.op_type for node in outcome.pruned.graph.node] == ["Conv", "Conv", "Relu", "Conv", "Conv"]
    assert _arrays(outcome.pruned)["middle"].shape == (4, 4, 1, 1)


# what is carried over -------------------------------------------------------------------------


def _decorated() -> ModelProto:
    """Use every field that a model may have and that has nothing to do with channels."""
    proto = onnx.ModelProto.FromString(PLAIN.SerializeToString())
    proto.producer_name, proto.producer_version, proto.domain, proto.model_version = "maker", "1.2", "org.example", 7
    proto.doc_string = "about the model"
    proto.metadata_props.add(key="author", value="somebody")
    proto.graph.doc_string = "about the graph"
    proto.graph.input[0].doc_string = "about the input"
    for number, node in enumerate(proto.graph.node):
        node.name, node.doc_string = f"node{number}", f"about node {number}"
        node.metadata_props.add(key="layer", value=str(number))
    proto.graph.initializer[0].doc_string = "about the weight"
    proto.graph.quantization_annotation.add(tensor_name="h")
    return proto


def test_everything_else_is_carried_over() -> None:
    proto = _decorated()
    pruned = prune(analyze(proto), halves(analyze(proto)))
    for message in (proto, pruned):
        for tensor in message.graph.initializer:
            tensor.ClearField("raw_data")
            tensor.ClearField("dims")
    assert pruned == proto


def test_unknown_fields_survive() -> None:
    """Of a newer ONNX than the installed one: field 200 of the model, the graph, a node and a tensor."""
    extra = bytes([0xC2, 0x0C, 2]) + b"hi"
    proto = _decorated()
    for message in (proto.graph.node[1], proto.graph.initializer[0], proto.graph):
        message.MergeFromString(extra)
    proto.MergeFromString(extra)
    pruned = prune(analyze(proto), halves(analyze(proto)))
    data = pruned.SerializeToString()
    assert data.count(extra) == proto.SerializeToString().count(extra) == 4


def test_order_of_nodes_and_initializers_stays() -> None:
    pruned = check(PLAIN).pruned
    assert [node.output[0] for node in pruned.graph.node] == ["h", "m", "y"]
    assert [t.name for t in pruned.graph.initializer] == [t.name for t in PLAIN.graph.initializer]


def test_declared_shapes_follow_where_they_name_a_size() -> None:
    text = "(float[N,3,6,6] x) => (float[N,2,6,6] y) { h = Conv (x, first)\n m = Relu (h)\n y = Conv (m, last) }"
    proto = model(text, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)})
    proto.graph.value_info.extend(
        [
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 8, 6, 6]),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, ["N", "C", 6, None]),
        ]
    )
    pruned = check(proto, KEEP).pruned
    shapes = {v.name: v.type.tensor_type.shape for v in (*pruned.graph.value_info, *pruned.graph.output)}
    assert [d.dim_param or d.dim_value for d in shapes["h"].dim] == ["N", 4, 6, 6]
    assert [d.dim_param or d.dim_value for d in shapes["m"].dim] == ["N", 0, 6, 0]
    assert [d.dim_param or d.dim_value for d in shapes["y"].dim] == ["N", 2, 6, 6]


def test_nodes_that_were_dead_before_stay_and_those_that_die_go() -> None:
    text = """unused = Relu (h)
        mean = ReduceMean <axes = [1, 2, 3]> (raw)
        w = Sub (raw, mean)
        m = Conv (h, w)"""
    pruned = check(chain(text, {"raw": (8, 8, 1, 1), "spare": (5,)})).pruned
    assert [node.op_type for node in pruned.graph.node] == ["Conv", "Relu", "Conv", "Conv"]
    names = {t.name for t in pruned.graph.initializer}
    assert "spare" in names
    assert "raw" not in names


# factors --------------------------------------------------------------------------------------

ATTENTION = """(float[2,5,3] x) => (float[] y) {
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    t = Transpose <perm = [0, 2, 1]> (k)
    s = MatMul (q, t)
    shape = Shape (q)
    d = Gather (shape, last)
    f = Cast <to = 1> (d)
    root = Sqrt (f)
    c = Div (s, root)
    y = Softmax <axis = -1> (c)
}"""


def test_the_scale_of_attention_is_held() -> None:
    outcome = check(model(ATTENTION, {"wq": (3, 16), "wk": (3, 16)}, last=np.int64(2)))
    divisor = next(node for node in outcome.pruned.graph.node if node.op_type == "Div").input[1]
    assert float(_arrays(outcome.pruned)[divisor]) == 4.0
    assert outcome.values["q"].shape == (2, 5, 8)


def test_factor_of_a_mean_that_is_a_graph_output() -> None:
    proto = model(
        "(float[2,3,6,6] x) => (float[] y) { h = Conv (x, first)\n y = ReduceMean (h, axes) }",
        {"first": (8, 3, 1, 1)},
        opset=18,
        axes=[1],
    )
    outcome: Outcome = check(proto, KEEP)
    nodes: list[NodeProto] = list(outcome.pruned.graph.node)
    assert nodes[-1].op_type == "Mul"
    assert list(nodes[-1].output) == ["y"]
    assert outcome.effect > 1e-3
