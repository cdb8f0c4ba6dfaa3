# SPDX-License-Identifier: Apache-2.0
"""Rows B: files that parse, and break a rule of ONNX or use one that hardly anybody knows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from attacks.bench import Bench, Row, Trial, check, either, from_tests, prunes, refuses, with_edit

__all__ = ["ROWS"]

validity = from_tests("faults/test_validity")
misfits = from_tests("faults/test_misfits")
bad = from_tests("support/bad_files")
tiny = from_tests("support/tiny_models")
small = bad.small_model
_EDITS = {edit.id: edit for edit in validity.EDITS}


def refused(*names: str) -> dict[str, Trial]:
    """Return trials of edits of the small model that the tests know with what has to be said."""
    return {name: refuses(with_edit(_EDITS[name].change), _EDITS[name].gist) for name in names}


def legal(*names: str) -> dict[str, Trial]:
    """Return trials of edits of the small model that are allowed."""
    return {name: prunes(with_edit(validity.LEGAL[name])) for name in names}


def misfit(*names: str) -> dict[str, Trial]:
    """Return trials of operands that do not fit."""
    return {name: refuses(with_edit(misfits.CASES[name][0]), misfits.CASES[name][1]) for name in names}


def _free_output(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def _only_passes(model: ModelProto) -> None:
    model.graph.ClearField("node")
    model.graph.ClearField("initializer")
    model.graph.output[0].CopyFrom(model.graph.input[0])


def _no_inputs(model: ModelProto) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    model.graph.ClearField("input")
    model.graph.initializer.append(numpy_helper.from_array(x, "x"))


def _unused(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Neg", ["a"], ["nobody"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 3), np.float32), "unread"))


def _dims(*dims: int | str | None) -> Trial:
    """Return the trial of an input of such dimensions."""
    return prunes(with_edit(_input(*dims)))


def _input(*dims: int | str | None) -> validity.Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims)))
        _free_output(model)

    return change


def _no_rank(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")
    _free_output(model)


def _lies(model: ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 99, 1]))


def _given_shape(bench: Bench) -> None:
    bench.write(with_edit(_no_rank)())
    bench.pruned("m.onnx", "--params", "0.9", "--input-shape", "x=1x3x8x8")


def _appended(op_type: str, domain: str, **attributes: object) -> validity.Callable[[ModelProto], None]:
    """Return the edit that lets an operator read the small model's Relu, beside the convolution."""

    def change(model: ModelProto) -> None:
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))
        node = helper.make_node(op_type, ["r"], ["s"], domain=domain, **attributes)
        model.graph.node.insert(2, node)
        model.graph.node[3].input[0] = "s"

    return change


def _attribute(kind: int) -> validity.Callable[[ModelProto], None]:
    """Return the edit that gives a node of an own operator an attribute of a rare type."""

    def change(model: ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("own", 1))
        graph = helper.make_graph([], "inner", [], [])
        tensor = numpy_helper.from_array(np.ones(2, np.float32), "t")
        sparse = onnx.SparseTensorProto(values=tensor, dims=[9])
        sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(2), "i"))
        attribute = AttributeProto(name="rare", type=kind)
        {
            AttributeProto.GRAPHS: lambda: attribute.graphs.append(graph),
            AttributeProto.TENSORS: lambda: attribute.tensors.append(tensor),
            AttributeProto.SPARSE_TENSOR: lambda: attribute.sparse_tensor.CopyFrom(sparse),
            AttributeProto.TYPE_PROTO: lambda: attribute.tp.CopyFrom(helper.make_tensor_type_proto(1, [1])),
        }[kind]()
        model.graph.node.append(helper.make_node("Anything", ["y"], ["z"], domain="own"))
        model.graph.node[-1].attribute.append(attribute)

    return change


def _rare(kind: int) -> Trial:
    """Return the trial that such an attribute is still there in what was written."""

    def trial(bench: Bench) -> None:
        bench.write(with_edit(_attribute(kind))())
        done = bench.solve("m.onnx", "--params", "0.9", "--unverified")
        if done.code:
            bench.refused(done, "", code=done.code)
        else:
            written = onnx.load(bench.folder / "m.pruned.onnx").graph.node[-1].attribute[0]
            wanted = onnx.load(bench.folder / "m.onnx").graph.node[-1].attribute[0]
            check(written == wanted, "the attribute was lost")

    return trial


def _extras(bench: Bench) -> None:
    def decorate(model: ModelProto) -> None:
        model.metadata_props.add(key="author", value="somebody")
        model.doc_string = "a model"
        model.graph.node[0].doc_string = "first"

    bench.write(with_edit(decorate)())
    written = onnx.load(bench.pruned())
    check(written.metadata_props[0].value == "somebody", "metadata were lost")
    check((written.doc_string, written.graph.node[0].doc_string) == ("a model", "first"), "texts were lost")


def _functions() -> ModelProto:
    fidelity = from_tests("support/fidelity_models")
    return ModelProto.FromString(fidelity.analysed("function")[0].model.proto.SerializeToString())


_CHAIN = tiny.chain
_RARE = {"GRAPHS": 10, "TENSORS": 9, "SPARSE_TENSOR": 11, "TYPE_PROTO": 13}
ROWS = (
    Row("B1", "IR versions that there never were, or that are too old", "refused with those that are supported",
        refused("ir_0", "ir_2", "ir_999")),
    Row("B2", "operator sets that are too old, unknown, missing or given twice", "refused",
        refused("opset_1", "opset_6", "opset_999", "no_opset", "opset_twice", "opset_by_both_names",
                "custom_domain_twice")),
    Row("B3", "a graph without nodes, outputs or inputs", "nothing to prune, refused, or pruned",
        {**refused("no_outputs", "no_graph_content", "no_graph"),
         "passes its input on": refuses(with_edit(_only_passes), "prun|cost", code=1),
         "no inputs": either(with_edit(_no_inputs))}),
    Row("B4", "cycles and nodes in another order", "refused with the nodes",
        refused("cycle", "self_loop", "wrong_order")),
    Row("B5", "a value or a weight that is defined twice", "refused",
        refused("value_twice", "value_is_input", "value_is_initializer", "input_twice", "initializer_twice",
                "initializer_unnamed")),
    Row("B6", "node names that are equal (which onnxruntime refuses) or missing", "refused; pruned",
        {**refused("equal_node_names"), **legal("nodes_without_names")}),
    Row("B7", "an inner graph that hides an outer weight", "refused", refused("inner_hides_outer")),
    Row("B8", "names that nothing defines; nodes and weights that nobody reads", "refused; pruned",
        {**refused("dangling_input", "dangling_output"), **legal("unused_initializer"),
         "unused node": prunes(with_edit(_unused))}),
    Row("B9", "shapes that are missing, open, or contradict what is computed", "pruned with what is found or given",
        {"open output": prunes(with_edit(_free_output)), "lies": prunes(with_edit(_lies)),
         "no rank": either(with_edit(_no_rank)), "no rank, shape given": _given_shape}),
    Row("B10", "open batch, height and width; an open channel dimension", "pruned; channels come from the weights",
        {"batch": _dims("n", 3, 8, 8), "size": _dims(1, 3, "h", "w"), "all but channels": _dims("n", 3, "h", "w"),
         "unnamed": _dims(None, 3, None, None), "channels": _dims("n", "c", 8, 8), "all": _dims("n", "c", "h", "w")}),
    Row("B11", "dimensions of zero, below it, beyond any memory; scalars; thirty axes", "refused, or pruned around it",
        {**refused("negative_dim", "huge_dim", "rank_30"), **legal("zero_size_tensor"),
         "zero batch": either(with_edit(_input(0, 3, 8, 8))), "zero height": either(with_edit(_input(1, 3, 0, 8))),
         "zero channels": refuses(with_edit(_input(1, 0, 8, 8)), ""),
         "scalar input": refuses(with_edit(_input()), "")}),
    Row("B12", "weights whose data does not fit, or is there twice", "refused with the tensor",
        refused("raw_too_short", "raw_too_long", "no_data", "data_twice", "wrong_field", "segment", "type_99",
                "type_undefined", "type_string", "sparse_without_values")),
    Row("B13", "operands that do not fit each other", "refused with node and input",
        {**refused("group_0", "group_negative", "group_3_of_8", "stride_0", "dilation_0", "stride_count", "pad_count",
                   "kernel_shape", "weight_rank_2"),
         **misfit("bias", "bias_rank", "channels", "rank", "type", "batch_normalization", "addition", "permutation",
                  "reshape", "product", "concat", "axis")}),
    Row("B14", "attributes that are missing, doubled, of a wrong type, or refer to a function", "refused",
        {**refused("attribute_type", "attribute_unknown", "attribute_twice", "attribute_missing",
                   "attribute_reference", "auto_pad")}),
    Row("B15", "operators that nobody knows, or other runtimes do", "refused where ONNX must have them, else whole",
        {**refused("unknown_operator"),
         "own domain": refuses(with_edit(_appended("Whiten", "own")), "prun", code=1),
         "machine learning": either(with_edit(_appended("Normalizer", "ai.onnx.ml", norm="MAX"))),
         "of onnxruntime": prunes(with_edit(_appended("Gelu", "com.microsoft"))),
         "unknown of onnxruntime": either(with_edit(_appended("Whiten", "com.microsoft")))}),
    Row("B16", "attributes of rare types", "kept, or refused",
        {**{name: _rare(kind) for name, kind in _RARE.items()}, **legal("type_attribute")}),
    Row("B17", "functions that call themselves, hide an operator, or explode", "refused before anything is expanded",
        {**refused("recursive_function", "function_twice", "function_like_operator"),
         "bomb": refuses(lambda: bad.function_bomb(30), "nodes once its functions are expanded")}),
    Row("B18", "functions of the model's own", "pruned",
        {"called": prunes(_functions), **legal("local_function")}),
    Row("B19", "texts, metadata, annotations and training information", "kept",
        {"kept": _extras, **legal("metadata_and_annotations")}),
    Row("B20", "names with control characters, of a megabyte, or like paths", "pruned; shown harmlessly, never a path",
        {**legal("hostile_names"),
         "in an error": refuses(with_edit(lambda m: validity.rename_input(1, "\x1b[31mred\n\0")(m)), "defines"),
         "megabyte": either(with_edit(lambda m: setattr(m.graph.node[0], "name", "n" * 2**20)))}),
    Row("B21", "an input that is an output; optional operands left out in the middle", "pruned",
        {**legal("input_is_output"),
         "left out": prunes(lambda: _CHAIN('m = Clip (h, "", six)', six=np.float32(6)))}),
    Row("B22", "annotations for several devices", "refused as not supported", refused("devices", "node_devices")),
)  # fmt: skip
