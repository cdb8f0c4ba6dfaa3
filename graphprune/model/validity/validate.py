# SPDX-License-Identifier: Apache-2.0
"""Validity: what must hold of a model beyond what `onnx.checker` checks.

The checker accepts unknown opsets, convolutions with zero groups, names hidden by inner names and more, and it
would serialise all weights. So it gets a copy without them, after our own list has passed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import onnx
from onnx import checker, defs, shape_inference

from graphprune.errors import ModelFileError, UnsupportedModelError, clipped, quote
from graphprune.model.inference.contributed import MICROSOFT, is_contributed
from graphprune.model.tensors import is_external
from graphprune.model.validity.functions import check_functions
from graphprune.model.validity.names import check_names
from graphprune.model.validity.survey import HeldTensor, Survey, label, nodes_below, survey

__all__ = ["OLDEST_IR", "OLDEST_OPSET", "validate", "without_weights"]

OLDEST_OPSET: Final = 7
OLDEST_IR: Final = 3
_DEFAULT_DOMAINS: Final = frozenset({"", "ai.onnx"})
_OF_TABLES: Final = frozenset({"ai.onnx.ml"})
_GROUPED: Final = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"})
_WEIGHT_SLOT: Final = {"QLinearConv": 3}
_AUTO_PADS: Final = frozenset({b"", b"NOTSET", b"SAME_LOWER", b"SAME_UPPER", b"VALID"})
_SMALL: Final = 1024
# Everything the checker and protobuf have been seen to raise on damaged models; all mean the same to a user.
_CHECKER_ERRORS: Final = (
    checker.ValidationError,
    shape_inference.InferenceError,
    ValueError,
    RuntimeError,
    TypeError,
    LookupError,
    ArithmeticError,
)


def validate(proto: onnx.ModelProto, surveyed: Survey, *, max_calls: int) -> None:
    """Raise unless `proto` is valid and of a kind that graphprune reads.

    Parameters
    ----------
    proto : onnx.ModelProto
    surveyed : Survey
        What `survey` found in `proto`.
    max_calls : int
        Largest number of nodes after expanding all local functions.

    Raises
    ------
    ModelFileError
        If the model breaks a rule of ONNX.
    UnsupportedModelError
        If its versions are out of range, or it has multi-device annotations.
    UnsafeModelError
        If its functions expand to more than `max_calls` nodes.
    """
    if not proto.HasField("graph"):
        raise ModelFileError("the model has no graph")
    _check_versions(proto, surveyed)
    if not proto.graph.output:
        raise ModelFileError("the model has no outputs, so nothing of it is used", hint="export it again")
    _check_kinds(proto, surveyed)
    check_functions(proto, max_calls=max_calls)
    check_names(proto)
    _check_attributes(proto, surveyed)
    _check_types(surveyed.graphs)
    _check_convolutions(surveyed.graphs)
    try:
        checker.check_model(without_weights(proto, surveyed))
    except _CHECKER_ERRORS as error:
        raise ModelFileError(f"the model is not valid ONNX: {_objection(str(error))}") from error


def _objection(said: str) -> str:
    """Return what the checker says, and of which node."""
    text, _, rest = said.strip().partition("\n")
    name = re.search(r"Name: (.+) OpType: (\w+)", rest)
    where = f" ({name[2]} node {quote(name[1])})" if name else ""
    return clipped(text).rstrip(".") + where


def _check_versions(proto: onnx.ModelProto, surveyed: Survey) -> None:
    """Check the IR version and the imported operator sets."""
    if not OLDEST_IR <= proto.ir_version <= onnx.IR_VERSION:
        raise UnsupportedModelError(
            f"the model has IR version {proto.ir_version}; supported are {OLDEST_IR} to {onnx.IR_VERSION}",
            hint="export it again with a current exporter, or update the onnx package",
        )
    # Trees and tables have operators of their own domain only.
    standard = any(node.domain not in _OF_TABLES for node in surveyed.nodes)
    if "" not in _check_imports(proto.opset_import, "the model") and standard:
        raise ModelFileError("the model does not say which version of the standard operators (opset) it uses")
    for function in proto.functions:
        _check_imports(function.opset_import, f"function {quote(function.name)}")


def _check_imports(imports: Iterable[onnx.OperatorSetIdProto], owner: str) -> dict[str, int]:
    """Return the imported operator sets by domain, the default domain as the empty string."""
    versions: dict[str, int] = {}
    for entry in imports:
        domain = "" if entry.domain in _DEFAULT_DOMAINS else entry.domain
        if domain in versions:
            raise ModelFileError(
                f"{owner} imports the operators of domain {quote(domain)} twice",
                hint="the file may hold two models one after the other; export it again",
            )
        versions[domain] = entry.version
    newest = defs.onnx_opset_version()
    if "" in versions and not OLDEST_OPSET <= versions[""] <= newest:
        raise UnsupportedModelError(
            f"{owner} uses opset {versions['']}; supported are {OLDEST_OPSET} to {newest}",
            hint="convert it with onnx.version_converter, or export it again",
        )
    return versions


def _check_kinds(proto: onnx.ModelProto, surveyed: Survey) -> None:
    """Refuse the parts of ONNX that graphprune does not read."""
    if proto.configuration or any(node.device_configurations for node in surveyed.nodes):
        raise UnsupportedModelError("the model is annotated for several devices; remove the annotations first")


def _check_attributes(proto: onnx.ModelProto, surveyed: Survey) -> None:
    """Check what attributes may hold: references only in functions, steps of at least one."""
    for node in nodes_below(proto.graph) if proto.functions else surveyed.nodes:
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise ModelFileError(
                    f"{label(node)} takes attribute {quote(attribute.name)} from a function, but is in none"
                )
    for node in surveyed.nodes:
        for attribute in node.attribute:
            if node.domain in _DEFAULT_DOMAINS and attribute.name in ("strides", "dilations"):
                _check_steps(node, attribute)
            if node.domain in _DEFAULT_DOMAINS and attribute.name == "auto_pad" and attribute.s not in _AUTO_PADS:
                raise ModelFileError(f"{label(node)} has the unknown auto_pad {quote(attribute.s)}")


def _check_types(graphs: Sequence[onnx.GraphProto]) -> None:
    """Check that declared types of elements exist; an input must have one."""
    known = frozenset(onnx.TensorProto.DataType.values())
    for graph in graphs:
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type not in known:
                kind = value.type.tensor_type.elem_type
                raise ModelFileError(f"value {quote(value.name)} is declared with the unknown element type {kind}")
    for value in graphs[0].input if graphs else ():
        if value.type.HasField("tensor_type") and not value.type.tensor_type.elem_type:
            raise ModelFileError(f"input {quote(value.name)} has no element type")


def _check_steps(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    if min(attribute.ints, default=1) < 1:
        raise ModelFileError(f"{label(node)} has {attribute.name} {quote(list(attribute.ints))}; all must be positive")


def _check_convolutions(graphs: Sequence[onnx.GraphProto]) -> None:
    """Check groups and window attributes of convolutions whose weight is an initializer."""
    outer = {tensor.name: tuple(tensor.dims) for tensor in graphs[0].initializer} if graphs else {}
    for graph in graphs:
        dims = {**outer, **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer}}
        for node in graph.node:
            if node.op_type in _GROUPED and node.domain in _DEFAULT_DOMAINS:
                _check_convolution(node, dims)


def _check_convolution(node: onnx.NodeProto, dims: Mapping[str, tuple[int, ...]]) -> None:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    group = attributes["group"].i if "group" in attributes else 1
    if group < 1:
        raise ModelFileError(f"{label(node)} has group {group}; it must be at least 1")
    slot = _WEIGHT_SLOT.get(node.op_type, 1)
    weight = dims.get(node.input[slot]) if len(node.input) > slot else None
    if weight is None:
        return
    if len(weight) < 3:
        raise ModelFileError(f"{label(node)} has a weight of {len(weight)} dimensions; at least 3 are needed")
    if weight[0] % group:
        raise ModelFileError(f"{label(node)} has {weight[0]} channels, which group {group} does not divide")
    window = len(weight) - 2
    for name, length in (("strides", window), ("dilations", window), ("kernel_shape", window), ("pads", 2 * window)):
        count = len(attributes[name].ints) if name in attributes else length
        if count != length:
            raise ModelFileError(f"{label(node)} has {count} {name}, but its weight needs {length}")
    if "kernel_shape" in attributes and tuple(attributes["kernel_shape"].ints) != weight[2:]:
        raise ModelFileError(
            f"{label(node)} has kernel_shape {quote(list(attributes['kernel_shape'].ints))}, "
            f"but its weight is {quote(list(weight[2:]))}"
        )


def without_weights(proto: onnx.ModelProto, surveyed: Survey) -> onnx.ModelProto:
    """Return a copy of `proto` for the checker, in which large and external tensors have zero elements.

    No weight is copied on the way. Structure, names and types are those of `proto`; unknown fields, documentation
    and training information are left out.
    """
    light = onnx.ModelProto(ir_version=proto.ir_version, producer_name=proto.producer_name, domain=proto.domain)
    light.opset_import.extend(proto.opset_import)
    light.metadata_props.extend(proto.metadata_props)
    light.functions.extend(proto.functions)
    graph, source = light.graph, proto.graph
    graph.name = source.name or "graph"
    graph.node.extend(source.node)
    for node in graph.node:
        node.name = node.name or next(iter(node.output), "")  # for messages
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    for value in (*graph.input, *graph.output):
        # The checker wants a shape and a graph name; runtimes do without, and so do many older files.
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    for tensor in source.initializer:
        graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=[0])
    if any(held.node is not None and _is_heavy(held) for held in surveyed.tensors):
        for held in filter(_is_heavy, survey(light).tensors):
            tensor = held.tensor
            name, data_type = tensor.name, tensor.data_type
            tensor.Clear()
            tensor.name, tensor.data_type = name, data_type
            tensor.dims.append(0)
    _set_apart(light)
    return light


def _set_apart(light: onnx.ModelProto) -> None:
    """Give the default domain one name, and move what onnxruntime adds to it to a domain without schemas."""
    for entry in light.opset_import:
        entry.domain = "" if entry.domain in _DEFAULT_DOMAINS else entry.domain
    version = max((entry.version for entry in light.opset_import if entry.domain in _DEFAULT_DOMAINS), default=1)
    moved = False
    for node in (*nodes_below(light.graph), *(node for each in light.functions for node in nodes_below(each))):
        node.domain = "" if node.domain in _DEFAULT_DOMAINS else node.domain
        if is_contributed(node.domain, node.op_type, version):
            node.domain, moved = MICROSOFT, True
    if moved and all(entry.domain != MICROSOFT for entry in light.opset_import):
        light.opset_import.add(domain=MICROSOFT, version=1)


def _is_heavy(held: HeldTensor) -> bool:
    return is_external(held.tensor) or math.prod(held.tensor.dims) > _SMALL
