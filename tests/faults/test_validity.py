# SPDX-License-Identifier: Apache-2.0
"""Models that parse but break a rule, and legal oddities that must load: one small edit each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from bad_files import Edit, function_bomb, nested_ifs, set_attribute, small_model, weight
from onnx import AttributeProto, TensorProto, helper, numpy_helper, parser

from graphprune.errors import ModelFileError, UnsafeModelError, UnsupportedModelError
from graphprune.model.load import Limits, load


def set_opset(version: int) -> Callable[[onnx.ModelProto], object]:
    return lambda model: setattr(model.opset_import[0], "version", version)


def set_ir(version: int) -> Callable[[onnx.ModelProto], object]:
    return lambda model: setattr(model, "ir_version", version)


def import_also(domain: str) -> Callable[[onnx.ModelProto], object]:
    return lambda model: model.opset_import.append(helper.make_opsetid(domain, 17))


def rename_output(node: int, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[node].output[0] = name

    return change


def rename_input(node: int, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[node].input[0] = name

    return change


def attribute(node: int, **values: object) -> Callable[[onnx.ModelProto], None]:
    return lambda model: set_attribute(model, node, **values)


def reverse_nodes(model: onnx.ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def set_raw(data: Callable[[bytes], bytes]) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        weight(model).raw_data = data(weight(model).raw_data)

    return change


def set_dims(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        weight(model).dims[:] = dims

    return change


def make_sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "b1")
    indices = numpy_helper.from_array(np.full(1, 8, np.int64), "i")
    model.graph.initializer.remove(weight(model, "b1"))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8]))


def shadow_weight(model: onnx.ModelProto) -> None:
    inner = numpy_helper.from_array(np.ones(1, np.float32), "w1")
    nodes = [helper.make_node("Identity", ["w1"], ["inner"])]
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph(nodes, "branch", [], [output], [inner])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))


def add_function(name: str, domain: str, calls: str, times: int = 1) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = helper.make_node(calls, ["a"], ["b"], domain=domain)
        imports = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))
        for _ in range(times):
            model.functions.append(helper.make_function(domain, name, ["a"], ["b"], [node], imports))

    return change


def annotate_devices(model: onnx.ModelProto) -> None:
    model.configuration.add(name="pair", num_devices=2)


def annotate_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].device_configurations.add(configuration_id="pair")


def refer_to_function(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.add(name="group", ref_attr_name="g", type=AttributeProto.INT)


def same_node_names(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = "same"


def no_graph_content(model: onnx.ModelProto) -> None:
    for name in ("node", "input", "output", "initializer"):
        model.graph.ClearField(name)


EDITS = (
    Edit("ir_0", set_ir(0), UnsupportedModelError, "IR version 0; supported are 3 to"),
    Edit("ir_2", set_ir(2), UnsupportedModelError, "IR version 2"),
    Edit("ir_999", set_ir(999), UnsupportedModelError, "IR version 999"),
    Edit("opset_1", set_opset(1), UnsupportedModelError, "opset 1; supported are 7 to"),
    Edit("opset_6", set_opset(6), UnsupportedModelError, "opset 6"),
    Edit("opset_999", set_opset(999), UnsupportedModelError, "opset 999"),
    Edit("no_opset", lambda m: m.ClearField("opset_import"), ModelFileError, "does not say which version"),
    Edit("opset_twice", import_also(""), ModelFileError, "domain '' twice"),
    Edit("opset_by_both_names", import_also("ai.onnx"), ModelFileError, "domain '' twice"),
    Edit("custom_domain_twice", lambda m: [import_also("d")(m) for _ in "ab"], ModelFileError, "domain 'd' twice"),
    Edit("no_graph", lambda m: m.ClearField("graph"), ModelFileError, "no graph"),
    Edit("cycle", rename_input(0, "r"), ModelFileError, "cycle of 2 nodes: Conv node 'a' -> Relu node 'r'"),
    Edit("self_loop", rename_input(1, "r"), ModelFileError, "cycle of 1 nodes: Relu node 'r'"),
    Edit("wrong_order", reverse_nodes, ModelFileError, "Conv node 'y' reads 'r' before Relu node 'r' makes it"),
    Edit("value_twice", rename_output(1, "a"), ModelFileError, "'a' is defined twice, the second time by Relu"),
    Edit("value_is_input", rename_output(1, "x"), ModelFileError, "'x' is defined twice"),
    Edit("value_is_initializer", rename_output(1, "w2"), ModelFileError, "'w2' is defined twice"),
    Edit("input_twice", lambda m: m.graph.input.add(name="x"), ModelFileError, "two inputs are called 'x'"),
    Edit("initializer_twice", lambda m: m.graph.initializer.append(weight(m)), ModelFileError, "two initializers"),
    Edit("initializer_unnamed", lambda m: weight(m, "b1").ClearField("name"), ModelFileError, "has no name"),
    Edit("inner_hides_outer", shadow_weight, UnsupportedModelError, "'w1' of an inner graph hides"),
    Edit("dangling_input", rename_input(1, "q"), ModelFileError, "Relu node 'r' reads 'q', which nothing defines"),
    Edit("no_outputs", lambda m: m.graph.ClearField("output"), ModelFileError, "no outputs"),
    Edit("no_graph_content", no_graph_content, ModelFileError, "no outputs"),
    Edit("equal_node_names", same_node_names, ModelFileError, "two nodes are called 'same', the second is Relu"),
    Edit("unknown_declared_type", lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 2**31 - 1),
         ModelFileError, "'y' is declared with the unknown element type 2147483647"),
    Edit("input_without_type", lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 0),
         ModelFileError, "input 'x' has no element type"),
    Edit("sparse_without_values", lambda m: m.graph.sparse_initializer.add(dims=[3]), ModelFileError, "no values"),
    Edit("auto_pad", attribute(0, auto_pad="SAME_MIDDLE"), ModelFileError, "Conv node 'a' has the unknown auto_pad"),
    Edit("dangling_output", lambda m: m.graph.output.add(name="q"), ModelFileError, "'q' is made by no node"),
    Edit("negative_dim", set_dims(8, -3, 3, 3), ModelFileError, "impossible dimensions"),
    Edit("huge_dim", set_dims(2**62, 3, 3, 3), ModelFileError, "impossible dimensions"),
    Edit("rank_30", set_dims(*[1] * 30), UnsafeModelError, "30 dimensions, more than the limit 16"),
    Edit("raw_too_short", set_raw(lambda raw: raw[:-1]), ModelFileError, "needs 864 bytes, but holds 863"),
    Edit("raw_too_long", set_raw(lambda raw: raw + b"\0"), ModelFileError, "'w1'.*but holds 865"),
    Edit("no_data", lambda m: weight(m).ClearField("raw_data"), ModelFileError, "needs 216 values in float_data"),
    Edit("data_twice", lambda m: weight(m).float_data.append(1), ModelFileError, "holds its data twice"),
    Edit("wrong_field", lambda m: weight(m, "b1").int64_data.append(1), ModelFileError, "raw_data and in int64_data"),
    Edit("segment", lambda m: weight(m).segment.SetInParent(), ModelFileError, "segments"),
    Edit("type_99", lambda m: setattr(weight(m), "data_type", 99), ModelFileError, "unknown element type 99"),
    Edit("type_undefined", lambda m: setattr(weight(m), "data_type", 0), ModelFileError, "unknown element type 0"),
    Edit("type_string", lambda m: setattr(weight(m), "data_type", 8), ModelFileError, "strings in raw_data"),
    Edit("group_0", attribute(0, group=0), ModelFileError, "Conv node 'a' has group 0"),
    Edit("group_negative", attribute(0, group=-1), ModelFileError, "group -1; it must be at least 1"),
    Edit("group_3_of_8", attribute(0, group=3), ModelFileError, "8 channels, which group 3 does not divide"),
    Edit("stride_0", attribute(0, strides=[0, 1]), ModelFileError, r"strides '?\[0, 1\]'?; all must be positive"),
    Edit("dilation_0", attribute(0, dilations=[1, 0]), ModelFileError, "dilations"),
    Edit("stride_count", attribute(0, strides=[1]), ModelFileError, "1 strides, but its weight needs 2"),
    Edit("pad_count", attribute(0, pads=[1, 1]), ModelFileError, "2 pads, but its weight needs 4"),
    Edit("kernel_shape", attribute(0, kernel_shape=[5, 5]), ModelFileError, r"kernel_shape.*weight is.*3, 3"),
    Edit("weight_rank_2", set_dims(8, 27), ModelFileError, "weight of 2 dimensions"),
    Edit("attribute_type", attribute(0, auto_pad=1), ModelFileError, "not valid ONNX.*auto_pad"),
    Edit("attribute_unknown", attribute(0, colour=1), ModelFileError, "not valid ONNX.*colour"),
    Edit("attribute_twice", lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0]),
         ModelFileError, "not valid ONNX"),
    Edit("attribute_missing", lambda m: setattr(m.graph.node[1], "op_type", "Cast"), ModelFileError, "not valid ONNX"),
    Edit("attribute_reference", refer_to_function, ModelFileError, "from a function, but is in none"),
    Edit("unknown_operator", lambda m: setattr(m.graph.node[1], "op_type", "Relux"), ModelFileError, "Relux"),
    Edit("sparse_initializer", make_sparse, ModelFileError, "'b1' has indices of shape .* that do not fit shape"),
    Edit("devices", annotate_devices, UnsupportedModelError, "several devices"),
    Edit("node_devices", annotate_node, UnsupportedModelError, "several devices"),
    Edit("recursive_function", add_function("f", "d", "f"), ModelFileError, "'d::f' calls itself"),
    Edit("function_twice", add_function("f", "d", "g", 2), ModelFileError, "'d::f' is defined twice"),
    Edit("function_like_operator", add_function("Relu", "", "Neg"), UnsupportedModelError, "redefines a standard"),
)  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_refused(edit: Edit) -> None:
    model = small_model()
    load(model)
    edit.change(model)
    with pytest.raises(edit.error, match=edit.gist) as caught:
        load(model)
    assert type(caught.value) is edit.error
    assert "\n" not in caught.value.message


def clear_node_names(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.ClearField("name")


def constants_of_equal_names(model: onnx.ModelProto) -> None:
    """OnnxRuntime keeps them as weights, so that their nodes' names clash with none; converters write such files."""
    for index, name in enumerate([model.graph.node[0].name] * 2):
        node = helper.make_node("Constant", [], [f"constant_{index}"], name, value_float=1.0)
        model.graph.node.insert(0, node)
    onnxruntime.InferenceSession(model.SerializeToString())


def add_custom_node(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("custom", 1))
    model.graph.node.append(helper.make_node("Anything", ["y", "", "x"], ["", "z"], domain="custom", level=3))


def keep_extras(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="author", value="somebody")
    model.graph.node[0].doc_string = "first"
    model.graph.node[0].metadata_props.add(key="k", value="v")
    model.training_info.add().initialization_binding.add(key="w1", value="w1")
    model.graph.quantization_annotation.add(tensor_name="w1").quant_parameter_tensor_names.add(key="s", value="s")


def input_for_every_initializer(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def old_file(model: onnx.ModelProto) -> None:
    input_for_every_initializer(model)
    model.ir_version = 3
    model.opset_import[0].version = 7


def hostile_names(model: onnx.ModelProto) -> None:
    for node, name in zip(model.graph.node, ("\x1b[31mred\n\0", "../../etc/\u202epasswd", "🙂" * 40_000), strict=True):
        node.name = name


def type_attribute(model: onnx.ModelProto) -> None:
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    model.graph.node.append(helper.make_node("Optional", [], ["maybe"], type=kind))


def sequence(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("SequenceConstruct", ["y", "y"], ["all"]))
    model.graph.output.append(helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, None))


def zero_size(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "nothing"))


def pass_input_through(model: onnx.ModelProto) -> None:
    model.graph.output.append(model.graph.input[0])


LEGAL = {
    "nodes_without_names": clear_node_names,
    "constants_of_equal_names": constants_of_equal_names,
    "custom_domain": add_custom_node,
    "metadata_and_annotations": keep_extras,
    "initializers_as_inputs": input_for_every_initializer,
    "ir_3_opset_7": old_file,
    "hostile_names": hostile_names,
    "type_attribute": type_attribute,
    "sequence_output": sequence,
    "zero_size_tensor": zero_size,
    "input_is_output": pass_input_through,
    "unused_initializer": lambda m: m.graph.initializer.append(numpy_helper.from_array(np.ones(2), "unused")),
    "newest_opset": set_opset(onnx.defs.onnx_opset_version()),
    "newest_ir": set_ir(onnx.IR_VERSION),
    "local_function": add_function("f", "d", "g"),
}


@pytest.mark.parametrize("name", LEGAL)
def test_accepted(name: str) -> None:
    model = small_model()
    LEGAL[name](model)
    before = model.SerializeToString()
    loaded = load(model)
    assert loaded.proto is model
    assert model.SerializeToString() == before


def test_branches_may_use_the_same_names_as_each_other() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 17]>
        g (float[1] x, bool c) => (float[1] y) {
            y = If (c) <then_branch = t () => (float[1] z) { z = Relu(x) },
                        else_branch = e () => (float[1] z) { z = Neg(x) }>
        }""")
    assert load(model).proto.graph.node[0].op_type == "If"


def test_branch_may_not_read_what_comes_later() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["" : 17]>
        g (float[1] x, bool c) => (float[1] y) {
            y = If (c) <then_branch = t () => (float[1] z) { z = Relu(later) },
                        else_branch = e () => (float[1] z) { z = Neg(x) }>
            later = Neg(y)
        }""")
    with pytest.raises(ModelFileError, match="later"):
        load(model)


def test_function_bomb_is_refused_at_once() -> None:
    # 2**30 nodes once expanded: refused by counting, or this test would not end.
    with pytest.raises(UnsafeModelError, match="more than 10000 nodes once its functions are expanded"):
        load(function_bomb(30))


def test_functions_within_the_limit() -> None:
    assert len(load(function_bomb(6)).proto.functions) == 6
    with pytest.raises(UnsafeModelError, match="more than 126 nodes"):
        load(function_bomb(6), limits=Limits(function_calls=126))
    assert load(function_bomb(6), limits=Limits(function_calls=127))


def test_functions_that_unfold_out_of_proportion() -> None:
    """A kilobyte of functions became sixty thousand nodes, each of which takes its time."""
    with pytest.raises(UnsafeModelError, match="more than 10000 nodes once its functions are expanded"):
        load(function_bomb(16))
    assert load(function_bomb(16), limits=Limits(call_ratio=10_000))


def test_mutually_recursive_functions() -> None:
    model = function_bomb(3)
    model.functions[2].node[0].op_type, model.functions[2].node[0].domain = "f1", "bomb"
    with pytest.raises(ModelFileError, match=r"'bomb::f\d' calls itself"):
        load(model)


@pytest.mark.parametrize(
    ("limits", "gist"),
    [
        (Limits(nodes=2), "more than 2 nodes"),
        (Limits(name_length=4), "name 'small' has 5 characters"),
        (Limits(tensor_bytes=1000), "declare 1024 bytes, more than the limit 1000"),
        (Limits(depth=0), "nested more than 0 deep"),
    ],
    ids=["nodes", "name", "bytes", "depth"],
)
def test_limits(limits: Limits, gist: str) -> None:
    with pytest.raises(UnsafeModelError, match=gist):
        load(small_model(), limits=limits)


def test_nodes_of_inner_graphs_count() -> None:
    with pytest.raises(UnsafeModelError, match="more than 5 nodes"):
        load(nested_ifs(5), limits=Limits(nodes=5))


def test_declared_tensor_without_data_allocates_nothing() -> None:
    model = small_model()
    model.graph.initializer.add(name="huge", data_type=TensorProto.FLOAT, dims=[10**6, 10**6])
    with pytest.raises(ModelFileError, match=r"'huge'.*needs 1000000000000 values"):
        load(model)


def test_long_chain_is_checked_without_recursion() -> None:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(5000)]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("v0", "v5000")]
    graph = helper.make_graph(nodes, "chain", value[:1], value[1:])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    assert len(load(model).proto.graph.node) == 5000
    reverse_nodes(model)
    with pytest.raises(ModelFileError, match="before"):
        load(model)


def test_a_model_of_tables_needs_no_standard_operators() -> None:
    node = helper.make_node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml", threshold=0.5)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    graph = helper.make_graph([node], "table", value[:1], value[1:])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("ai.onnx.ml", 1)])
    assert load(model).proto is model
    node.domain = ""
    model.graph.node[0].CopyFrom(node)
    with pytest.raises(ModelFileError, match="does not say which version"):
        load(model)
