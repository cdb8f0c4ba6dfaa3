# SPDX-License-Identifier: Apache-2.0
"""The fidelity check: it passes what surgery does, and catches every other change of the message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from fidelity_models import GRAPHS, analysed, pruned
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from graphprune import api
from graphprune.errors import VerificationError
from graphprune.model.files.messages import carry_unknown, copy_but, differing
from graphprune.verification.fidelity.check_fidelity import check_fidelity


@pytest.mark.parametrize("name", GRAPHS)
def test_surgery_changes_nothing_else(name: str) -> None:
    analysis, plan = analysed(name)
    assert not plan.is_identity
    proto = pruned(name)
    onnx.checker.check_model(proto, full_check=True)
    check_fidelity(analysis, proto, plan)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_pruned_model_can_be_pruned_again(name: str) -> None:
    analysis = api.analyze(api.load(pruned(name)))
    options = api.SolveOptions(criterion="l1", solver="uniform", round_to=1)
    plan = api.solve(analysis, api.BudgetRequest("params", 0.7), options)
    again = api.apply(analysis, plan)
    assert not plan.is_identity
    onnx.checker.check_model(again.proto, full_check=True)
    assert api.verify(analysis, again, plan).ok


def test_a_pruned_file_is_faithful_too(tmp_path: object) -> None:
    analysis, plan = analysed("plain")
    path = f"{tmp_path}/pruned.onnx"
    onnx.save(pruned("plain"), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    check_fidelity(analysis, api.load(path), plan)


@dataclass(frozen=True)
class Tampering:
    """A change of a pruned model, and what the error has to say."""

    label: str
    model: str
    change: Callable[[ModelProto], object]
    says: str


def node(proto: ModelProto, output: str) -> NodeProto:
    return next(found for found in proto.graph.node if output in found.output)


def attribute(proto: ModelProto, output: str, name: str) -> onnx.AttributeProto:
    return next(found for found in node(proto, output).attribute if found.name == name)


def tensor(proto: ModelProto, name: str) -> TensorProto:
    for found in proto.graph.initializer:
        if found.name == name:
            return found
    return attribute(proto, name, "value").t


def put(proto: ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    target = tensor(proto, name)
    array = np.array(change(numpy_helper.to_array(target)), order="C")
    del target.dims[:]
    target.dims.extend(array.shape)
    target.raw_data = array.tobytes()


def bump(array: np.ndarray) -> np.ndarray:
    """Change one bit of one element."""
    words = np.array(array).view(np.uint32)
    words[(-1,) * words.ndim] ^= 1
    return words.view(np.float32)


def reorder(items: object, first: int, second: int) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]  # type: ignore[attr-defined]
    copies[first], copies[second] = copies[second], copies[first]
    del items[:]  # type: ignore[attr-defined]
    items.extend(copies)  # type: ignore[attr-defined]


def forget_unknown(message: onnx.GraphProto | ModelProto | NodeProto | TensorProto) -> None:
    message.DiscardUnknownFields()  # type: ignore[attr-defined]


def as_float16(proto: ModelProto) -> None:
    values = numpy_helper.to_array(tensor(proto, "w1")).astype(np.float16)
    target = tensor(proto, "w1")
    target.data_type, target.raw_data = TensorProto.FLOAT16, values.tobytes()


def add_node(proto: ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["a"], ["extra"]))


def scale_twice(proto: ModelProto) -> None:
    reads = node(proto, "y")
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "b.kept_share"))
    reads.input[0] = "b.half"
    at = list(proto.graph.node).index(reads)
    proto.graph.node.insert(at, helper.make_node("Mul", ["b", "b.kept_share"], ["b.half"], name="x.kept_share"))


def swap_copies(proto: ModelProto) -> None:
    node(proto, "a").input[2], node(proto, "c").input[2] = "shared.pruned1", "shared"


def unscale(proto: ModelProto) -> None:
    node(proto, "c.kept").output[0] = "c"
    proto.graph.node.remove(node(proto, "c") if node(proto, "c").op_type == "Mul" else proto.graph.node[-2])
    proto.graph.initializer.remove(tensor(proto, "c.kept_share"))


TAMPERINGS = (
    Tampering("IR version", "plain", lambda p: setattr(p, "ir_version", 9), "ir_version"),
    Tampering("opset", "plain", lambda p: setattr(p.opset_import[0], "version", 18), "opset_import"),
    Tampering("producer", "plain", lambda p: setattr(p, "producer_name", "me"), "producer_name"),
    Tampering("domain", "plain", lambda p: setattr(p, "domain", "me"), "domain"),
    Tampering("version", "plain", lambda p: setattr(p, "model_version", 2), "model_version"),
    Tampering("model text", "plain", lambda p: p.ClearField("doc_string"), "doc_string"),
    Tampering("model metadata", "plain", lambda p: p.metadata_props.pop(0), "metadata_props"),
    Tampering("more metadata", "plain", lambda p: p.metadata_props.add(key="by", value="me"), "metadata_props"),
    Tampering("plan", "plain", lambda p: setattr(p.metadata_props[1], "value", "0" * 64), "another plan"),
    Tampering("training", "plain", lambda p: p.training_info.add(), "training_info"),
    Tampering("function", "plain", lambda p: p.functions.add(name="f"), "functions"),
    Tampering("unknown field of the model", "plain", forget_unknown, "unknown fields"),
    Tampering("unknown field of the graph", "plain", lambda p: forget_unknown(p.graph), "unknown fields"),
    Tampering("unknown field of a node", "plain", lambda p: forget_unknown(node(p, "a")), "unknown fields"),
    Tampering("unknown field of a tensor", "plain", lambda p: forget_unknown(tensor(p, "w1")), "unknown fields"),
    Tampering("graph name", "plain", lambda p: setattr(p.graph, "name", "other"), "name"),
    Tampering("graph text", "plain", lambda p: p.graph.ClearField("doc_string"), "doc_string"),
    Tampering("annotation", "plain", lambda p: p.graph.quantization_annotation.pop(), "quantization_annotation"),
    Tampering("sparse", "plain", lambda p: p.graph.sparse_initializer.add(), "sparse_initializer"),
    Tampering("graph input", "plain", lambda p: setattr(p.graph.input[0], "name", "z"), "'x' is gone"),
    Tampering("input type", "plain", lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 10), "input"),
    Tampering(
        "dynamic size",
        "plain",
        lambda p: setattr(p.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 1),
        "graph input",
    ),
    Tampering("graph output", "plain", lambda p: setattr(p.graph.output[0], "doc_string", "z"), "output"),
    Tampering(
        "declared size",
        "plain",
        lambda p: setattr(p.graph.value_info[0].type.tensor_type.shape.dim[1], "dim_value", 16),
        "declared type of 'a'",
    ),
    Tampering("declared value", "plain", lambda p: p.graph.value_info.pop(), "declared values"),
    Tampering("node name", "plain", lambda p: setattr(node(p, "a"), "name", "z"), "the field name"),
    Tampering("node text", "plain", lambda p: setattr(node(p, "a"), "doc_string", "z"), "doc_string"),
    Tampering("node metadata", "plain", lambda p: node(p, "a").metadata_props.pop(), "metadata_props"),
    Tampering("operator", "plain", lambda p: setattr(node(p, "b"), "op_type", "Sigmoid"), "op_type"),
    Tampering("operator domain", "plain", lambda p: setattr(node(p, "b"), "domain", "me"), "domain"),
    Tampering("attribute", "plain", lambda p: attribute(p, "a", "pads").ints.__setitem__(0, 0), "attribute 'pads'"),
    Tampering("lost attribute", "plain", lambda p: node(p, "a").attribute.pop(), "attribute 'pads'"),
    Tampering(
        "more attributes",
        "plain",
        lambda p: node(p, "y").attribute.append(helper.make_attribute("group", 1)),
        "'group'",
    ),
    Tampering("swapped inputs", "plain", lambda p: node(p, "y").input.__setitem__(slice(0, 2), ["w2", "b"]), "input"),
    Tampering("lost input", "plain", lambda p: node(p, "a").input.pop(), "inputs of the node"),
    Tampering("omitted input", "plain", lambda p: node(p, "b").input.append(""), "inputs of the node"),
    Tampering("other input", "plain", lambda p: node(p, "y").input.__setitem__(0, "a"), "input 0"),
    Tampering("extra node", "plain", add_node, "is new"),
    Tampering("lost node", "plain", lambda p: p.graph.node.remove(node(p, "b")), "gone, but still read"),
    Tampering("order of nodes", "grouped", lambda p: reorder(p.graph.node, 0, 1), "another place"),
    Tampering("node twice", "plain", lambda p: p.graph.node.append(node(p, "b")), "another place or twice"),
    Tampering("value", "plain", lambda p: put(p, "w1", bump), "other values"),
    Tampering("value in a node", "plain", lambda p: put(p, "b1", bump), "other values"),
    Tampering("order of slices", "plain", lambda p: put(p, "w2", lambda a: a[:, ::-1]), "other values"),
    Tampering("whole weight", "plain", lambda p: put(p, "w1", lambda a: np.concatenate([a, a])), "shape"),
    Tampering("data type", "plain", as_float16, "data_type"),
    Tampering("tensor text", "plain", lambda p: tensor(p, "w1").ClearField("doc_string"), "doc_string"),
    Tampering("short data", "plain", lambda p: setattr(tensor(p, "w1"), "raw_data", b"123"), "needs"),
    Tampering(
        "extra tensor",
        "plain",
        lambda p: p.graph.initializer.append(numpy_helper.from_array(np.zeros(1), "z")),
        "is new",
    ),
    Tampering(
        "unread tensor",
        "plain",
        lambda p: p.graph.initializer.append(numpy_helper.from_array(np.zeros(1), "w1.pruned0")),
        "nobody reads it",
    ),
    Tampering("order of tensors", "shared bias", lambda p: reorder(p.graph.initializer, 0, 1), "order"),
    Tampering("value of a copy", "shared bias", lambda p: put(p, "shared.pruned1", bump), "other values"),
    Tampering("the other copy", "shared bias", swap_copies, "different slices|shape"),
    Tampering("size that is no group", "grouped", lambda p: setattr(attribute(p, "b", "group"), "i", 8), "'group'"),
    Tampering(
        "other attribute of a cut node",
        "grouped",
        lambda p: attribute(p, "b", "pads").ints.__setitem__(0, 0),
        "'pads'",
    ),
    Tampering("folded value", "hidden weights", lambda p: put(p, "w3n.pruned0", bump), "other values"),
    Tampering("hidden value", "hidden weights", lambda p: put(p, "w2", bump), "other values"),
    Tampering("permutation", "hidden weights", lambda p: attribute(p, "w1t", "perm").ints.__setitem__(0, 0), "'perm'"),
    Tampering("cast", "hidden weights", lambda p: setattr(attribute(p, "half", "to"), "i", 16), "'to'"),
    Tampering("sizes of another kind", "sizes", lambda p: setattr(tensor(p, "b.1.pruned"), "data_type", 1), "sizes"),
    Tampering(
        "too many sizes",
        "sizes",
        lambda p: put(p, "i.1.pruned", lambda a: np.asarray([1, 1, *a])),
        "more sizes",
    ),
    Tampering("size constant that stays", "sizes", lambda p: put(p, "one", lambda a: a + 1), "other values"),
    Tampering("axis", "sizes", lambda p: setattr(attribute(p, "e", "axis"), "i", 2), "'axis'"),
    Tampering("older list", "older sizes", lambda p: attribute(p, "b", "split").ints.pop(), "'split'"),
    Tampering("older axes", "older sizes", lambda p: attribute(p, "e", "axes").ints.__setitem__(0, 2), "'axes'"),
    Tampering("factor", "mean", lambda p: put(p, "c.kept_share", bump), "other values|shape"),
    Tampering("no factor", "mean", unscale, "is not scaled|gone"),
    Tampering("a factor too many", "plain", scale_twice, "is scaled"),
    Tampering("another product", "mean", lambda p: setattr(node(p, "c"), "op_type", "Add"), "behind"),
)


@pytest.mark.parametrize("case", TAMPERINGS, ids=lambda case: case.label)
def test_every_other_change_is_caught(case: Tampering) -> None:
    analysis, plan = analysed(case.model)
    proto = pruned(case.model)
    case.change(proto)
    with pytest.raises(VerificationError, match=case.says) as caught:
        check_fidelity(analysis, proto, plan)
    assert caught.value.exit_code == 101


def test_apply_checks_what_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis, plan = analysed("plain")

    def careless(*_: object) -> ModelProto:
        proto = pruned("plain")
        node(proto, "a").name = "z"
        return proto

    monkeypatch.setattr(api, "prune", careless)
    with pytest.raises(VerificationError, match="the field name"):
        api.apply(analysis, plan)


def test_all_kinds_of_unknown_fields_are_copied() -> None:
    data = b"\xf0\x3f\x96\x01\xf1\x3f12345678\xf2\x3f\x03new\xf3\x3f\x08\x01\xf4\x3f\xf5\x3f1234"
    source, target = ModelProto(ir_version=8, producer_name="a"), ModelProto()
    source.MergeFromString(data)
    copy_but(source, target, "producer_name")
    assert differing(source, target) == ["producer_name"]
    target.producer_name = "a"
    assert source == target
    carry_unknown(ModelProto(), target)
    assert source == target
