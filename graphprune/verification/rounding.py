# SPDX-License-Identifier: Apache-2.0
"""Rounding operators in a comparison: where two models may fall on either side of a tie, both get the same side.

A pruned model and the masked original sum the same numbers in another order, so their floats differ by rounding,
some 1e-7. Behind `QuantizeLinear` that is either nothing or, for the few values next to a tie, a whole step, and
such steps would spread from layer to layer until no tolerance fits. So the pruned model is cut at every rounding
operator: its own result there is compared, and what follows goes on from the masked original's result. Each
stretch between two roundings is thereby held to the tolerance of floats, and by induction all of them agree.

At the cut no value may differ by more than one step, and few may differ at all. A wrong slice moves many values, or
one by many steps, or is seen in the stretch before.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx import ModelProto, NodeProto, TensorProto, helper

from graphprune.analysis.analysis import Analysis
from graphprune.model.graph import Node
from graphprune.model.tensors import FLOATS

__all__ = ["OWN", "ROUNDING", "behind", "cut_kind", "cut_roundings", "roundings"]

OWN = ".graphprune.own"
"""Suffix of what the pruned model itself computes where it is cut."""

ROUNDING = frozenset({"Ceil", "DynamicQuantizeLinear", "Floor", "QGemm", "QuantizeLinear", "Round"})
_INTEGERS = frozenset(
    value for name, value in TensorProto.DataType.items() if name in ("INT8", "UINT8", "INT16", "UINT16", "INT32")
)
_FED = FLOATS | _INTEGERS | {TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64}
"""Types that onnxruntime takes from numpy."""


def roundings(analysis: Analysis, shared: Iterable[str]) -> list[str]:
    """Return the values at which to cut, among those that both models compute.

    A type that cannot be fed (8-bit floats, 4-bit integers) is cut where it has been turned into floats again.
    """
    there, results = set(shared), []
    for node in analysis.graph.nodes:
        if not _rounds(analysis, node):
            continue
        for name in node.outputs:
            if analysis.shapes.dtypes.get(name) in _FED:
                results.append(name)
            else:
                readers = [reader for reader, slot in analysis.graph.consumers.get(name, ()) if slot == 0]
                results.extend(reader.outputs[0] for reader in readers if reader.op_type == "DequantizeLinear")
    known = analysis.shapes.dims
    return [name for name in dict.fromkeys(results) if name in there and name in known and 0 not in known[name]]


def _rounds(analysis: Analysis, node: Node) -> bool:
    """Whether a node of the main graph turns floats (or exact sums) into the nearest of few values."""
    if not node.outputs or node.outputs[0] in analysis.shapes.constant or node.outputs[0] in analysis.flat.home:
        return False
    if node.op_type == "Cast" and not node.domain:
        source = analysis.shapes.dtypes.get(node.inputs[0])
        return source in FLOATS and analysis.shapes.dtypes.get(node.outputs[0]) in _INTEGERS
    return node.op_type in ROUNDING or node.op_type.startswith("QLinear")


def cut_kind(analysis: Analysis, name: str) -> str:
    """Return how results are compared at a cut.

    "few" may differ, each by one step. "all" may where the zero point itself was rounded, since with it everything
    moves by one step. The scale that comes with it is no rounded value: "float".
    """
    if analysis.graph.producer[name].op_type != "DynamicQuantizeLinear":
        return "few"
    return "float" if analysis.shapes.dtypes[name] in FLOATS else "all"


def behind(analysis: Analysis, cuts: Iterable[str]) -> set[str]:
    """Return the cut values, and all values that depend on them."""
    later = set(cuts)
    for node in analysis.graph.nodes:
        if any(name in later for name in (*node.inputs, *node.captured)):
            later.update(name for name in node.outputs if name)
    return later


def cut_roundings(model: ModelProto, types: dict[str, int]) -> None:
    """Let a model take these values as inputs, and give what it computes itself as outputs with the suffix `OWN`.

    Parameters
    ----------
    model : ModelProto
        Changed in place.
    types : dict of str to int
        Element type by value.
    """
    graph = model.graph
    for node in graph.node:
        _rename(node, types)
    kept = [value for value in graph.output if value.name not in types]
    del graph.output[:]
    graph.output.extend(kept)
    for name, elem_type in types.items():
        graph.output.append(helper.make_tensor_value_info(name + OWN, elem_type, None))
        graph.input.append(helper.make_tensor_value_info(name, elem_type, None))


def _rename(node: NodeProto, names: Iterable[str]) -> None:
    for slot, name in enumerate(node.output):
        if name in names:
            node.output[slot] = name + OWN
