# SPDX-License-Identifier: Apache-2.0
"""Sandwiches: an operator between two products, so that channels come from in front of it and are read behind it.

Of one of ONNX's node tests many models are made. Each axis of each operand in turn comes out of a product (`Conv`,
`Gemm` or `MatMul`), while the other operands are stored weights, or are computed, or the other axes are open; in one
more model all axes of all operands come out of products. Every axis of every result goes into a product.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["VARIANTS", "Sandwich", "sandwiches", "structure"]

Array = npt.NDArray[Any]

VARIANTS = ("stored", "computed", "open", "all")
"""What the operands are that no product makes: weights; computed; weights, while axes are open; or there is none."""

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
_INTEGERS = frozenset(
    getattr(TensorProto, name) for name in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
)
_STORED_WEIGHTS = 4
"""The first IR version in which an initializer need not be a graph input."""
_OPSET = 17
"""Of the products around operators of another domain, whose tests import no other."""
_BEHIND = 2
"""Width of what is made of each axis of a result."""


@dataclass(frozen=True)
class Sandwich:
    """A model around an operator.

    Attributes
    ----------
    name : str
        Of the node test, with the operand and axis that come out of a product.
    feeds : dict of str to ndarray
        Inputs with which the operator sees shapes of the node test.
    shapes : dict of str to tuple of int
        Shapes of the inputs, for the analysis.
    """

    name: str
    model: ModelProto
    feeds: dict[str, Array]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs, for the analysis."""
        return {name: value.shape for name, value in self.feeds.items()}


@dataclass(frozen=True)
class _Operand:
    """An input of a node test."""

    name: str
    kind: int
    value: Array

    @property
    def wide(self) -> list[int]:
        """Axes that a product can make: those of a number that is no size or position."""
        if self.kind not in _FLOATS and not (self.kind in _INTEGERS | {TensorProto.BOOL} and self.value.ndim > 1):
            return []
        return [axis for axis, size in enumerate(self.value.shape) if size > 1]


def sandwiches(test: Any, variants: Sequence[str] = VARIANTS) -> Iterator[Sandwich]:
    """Make all sandwiches of a node test.

    Parameters
    ----------
    test : onnx.backend.test.case.test_case.TestCase
    variants : sequence of str
        Those of `VARIANTS` that are wanted.
    """
    operands, results = _operands(test), _results(test)
    if operands is None or not results:
        return
    for slot, operand in enumerate(operands):
        for axis in operand.wide:
            for variant in variants:
                if variant == "all" or (variant == "computed" and len(operands) == 1):
                    continue
                name = f"{test.name}/{operand.name}.{axis}/{variant}"
                yield _Kitchen(test.model, name).make(operands, {slot: [axis]}, results, variant)
    every = {slot: operand.wide for slot, operand in enumerate(operands) if operand.wide}
    if "all" in variants and sum(map(len, every.values())) > 1:
        yield _Kitchen(test.model, f"{test.name}/all").make(operands, every, results, "all")


def structure(test: Any) -> bytes:
    """Return what tells the sandwiches of one test from those of another: all but the values of large operands."""
    graph = onnx.GraphProto()
    graph.CopyFrom(test.model.graph)
    graph.ClearField("name")
    names: dict[str, str] = {}
    for node in graph.node:
        node.ClearField("name")
        for slots in (node.input, node.output):
            for slot, name in enumerate(slots):
                slots[slot] = names.setdefault(name, str(len(names))) if name else ""
    values = [value for value in test.data_sets[0][0] if isinstance(value, np.ndarray) and value.dtype.kind in "iub"]
    small = b"".join(value.tobytes() for value in values if value.ndim < 2)
    for item in (*graph.input, *graph.output):
        item.name = names.get(item.name, "")
        if item.type.WhichOneof("value") == "tensor_type":
            kind = item.type.tensor_type
            kind.elem_type = TensorProto.FLOAT if kind.elem_type in _FLOATS else kind.elem_type
            for dim in kind.shape.dim:
                dim.dim_value = min(dim.dim_value, 2)
    return graph.SerializeToString(deterministic=True) + small


def _operands(test: Any) -> list[_Operand] | None:
    """Return the inputs of a test, None where one is no tensor."""
    found = []
    for value, data in zip(test.model.graph.input, test.data_sets[0][0], strict=False):
        if value.type.WhichOneof("value") != "tensor_type" or not isinstance(data, np.ndarray | np.generic):
            return None
        found.append(_Operand(value.name, value.type.tensor_type.elem_type, np.asarray(data)))
    if any(0 in operand.value.shape for operand in found):
        return None  # nothing comes out of a product that is fed with nothing
    return found if len(found) == len(test.model.graph.input) else None


def _results(test: Any) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Return type and shape of the outputs that products can read."""
    return {
        value.name: (value.type.tensor_type.elem_type, np.shape(data))
        for value, data in zip(test.model.graph.output, test.data_sets[0][1], strict=False)
        if value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.elem_type != TensorProto.STRING
    }


@dataclass
class _Kitchen:
    """One sandwich in the making."""

    test: ModelProto
    name: str
    nodes: list[NodeProto] = field(default_factory=list)
    stored: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    feeds: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(zlib.crc32(self.name.encode()))

    def make(
        self,
        operands: Sequence[_Operand],
        products: Mapping[int, Sequence[int]],
        results: Mapping[str, tuple[int, tuple[int, ...]]],
        variant: str,
    ) -> Sandwich:
        """Put the operator of the test between products along the given axes of its operands."""
        for slot, operand in enumerate(operands):
            if slot in products:
                self._in_front(operand, products[slot], opened=variant == "open")
            elif variant == "computed" and operand.kind != TensorProto.STRING:
                self._computed(operand)
            else:
                self.stored.append(numpy_helper.from_array(operand.value, operand.name))
        self.nodes.extend(self.test.graph.node)
        for name, (kind, shape) in results.items():
            self._behind(name, kind, shape)
        graph = helper.make_graph(self.nodes, "sandwich", self.inputs, self.outputs, self.stored)
        imports = list(self.test.opset_import)
        if not any(entry.domain == "" for entry in imports):
            imports.append(helper.make_opsetid("", _OPSET))
        version = max(self.test.ir_version, _STORED_WEIGHTS)
        model = helper.make_model(graph, opset_imports=imports, ir_version=version)
        return Sandwich(self.name, model, self.feeds)

    def _add(self, op: str, *operands: str, result: str = "", **attributes: Any) -> str:
        result = result or f"sandwich.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, operands, [result], result, **attributes))
        return result

    def _weight(self, *shape: int) -> str:
        values = self._random.standard_normal(shape).astype(np.float32)
        self.stored.append(numpy_helper.from_array(values, f"sandwich.w{len(self.stored)}"))
        return self.stored[-1].name

    def _given(self, name: str, shape: Sequence[int], opened: Sequence[int] = ()) -> str:
        """Add an input."""
        dims = [f"{name}.{axis}" if axis in opened else size for axis, size in enumerate(shape)]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        self.feeds[name] = self._random.standard_normal(shape).astype(np.float32)
        return name

    def _product(self, x: str, shape: Sequence[int], axis: int, width: int) -> str:
        """Let a product make `width` slices of an axis."""
        rank, before = len(shape), shape[axis]
        if axis == 1 and rank in (3, 4, 5):
            return self._add("Conv", x, self._weight(width, before, *[1] * (rank - 2)))
        if axis == 1 and rank == 2:
            return self._add("Gemm", x, self._weight(before, width), self._weight(width))
        if axis == rank - 1:
            return self._add("MatMul", x, self._weight(before, width))
        there = [*(at for at in range(rank) if at != axis), axis]
        moved = self._add("Transpose", x, perm=there)
        made = self._add("MatMul", moved, self._weight(before, width))
        return self._add("Transpose", made, perm=[int(at) for at in np.argsort(there)])

    def _in_front(self, operand: _Operand, axes: Sequence[int], *, opened: bool) -> None:
        """Let products make some axes of an operand."""
        shape = operand.value.shape
        others = [axis for axis in range(len(shape)) if axis not in axes] if opened else []
        x = self._given(f"sandwich.{operand.name}", shape, others)
        for axis in axes:
            x = self._product(x, shape, axis, shape[axis])
        self._typed(x, operand.kind, operand.name)

    def _typed(self, x: str, kind: int, result: str) -> None:
        """Turn real numbers into those of another type; integers are 0 and 1, which nearly every axis has."""
        if kind == TensorProto.FLOAT:
            self._add("Identity", x, result=result)
        elif kind in _FLOATS:
            self._add("Cast", x, to=kind, result=result)
        else:
            self.stored.append(numpy_helper.from_array(np.float32(0), f"sandwich.w{len(self.stored)}"))
            positive = self._add("Greater", x, self.stored[-1].name)
            self._add("Cast", positive, to=kind, result=result)

    def _computed(self, operand: _Operand) -> None:
        """Let an operand be the sum of its value and a zero that nobody knows before the model runs."""
        x = self._given(f"sandwich.{operand.name}", (2,))
        self.stored.append(numpy_helper.from_array(np.float32(1e30), f"sandwich.w{len(self.stored)}"))
        never = self._add("Greater", self._add("ReduceMax", x, keepdims=0), self.stored[-1].name)
        self.stored.append(numpy_helper.from_array(operand.value, f"sandwich.w{len(self.stored)}"))
        if operand.kind == TensorProto.BOOL:
            self._add("Or", self.stored[-1].name, never, result=operand.name)
        else:
            zero = self._add("Cast", never, to=operand.kind)
            self._add("Add", self.stored[-1].name, zero, result=operand.name)

    def _behind(self, name: str, kind: int, shape: tuple[int, ...]) -> None:
        """Let products read all axes of a result, one after the other; what they make comes first."""
        result = f"sandwich.{name}"
        self.outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, [None] * len(shape)))
        x = name if kind == TensorProto.FLOAT else self._add("Cast", name, to=TensorProto.FLOAT)
        for size in reversed(shape):
            x = self._add("MatMul", x, self._weight(size, _BEHIND)) if size > 1 else x
            if len(shape) > 1:
                x = self._add("Transpose", x, perm=[len(shape) - 1, *range(len(shape) - 1)])
        if not any(size > 1 for size in shape):
            x = self._add("Identity", x)
        self._add("Identity", x, result=result)
