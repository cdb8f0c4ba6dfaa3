# SPDX-License-Identifier: Apache-2.0
"""A draft: an ONNX graph under construction, with the spelling of each operator set and of each kind of constant.

Shapes are tracked for the batch size that the analysis uses, and axis 0 of every value is the batch axis. What may
vary is drawn from hypothesis, so that a failing model shrinks; weights come from a seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

__all__ = ["Draft", "Draw", "Value"]

Array = npt.NDArray[Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Value:
    """An activation: its name and its shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


class Draft:
    """Nodes and constants so far, and the activations that later nodes may read.

    Parameters
    ----------
    draw : callable
        Draws from a hypothesis strategy.
    opset : int
    seed : int
        Of the weights.
    dynamic : bool
        Whether the batch size is left open; no constant may then name it.
    """

    def __init__(self, draw: Draw, opset: int, seed: int, *, dynamic: bool) -> None:
        self.draw = draw
        self.opset = opset
        self.dynamic = dynamic
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.pool: list[Value] = []
        self._stored: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        self._count = 0

    # drawing ----------------------------------------------------------------------------------

    def choose(self, items: Sequence[T]) -> T:
        """Draw one of some items; shrinks to the first."""
        chosen: T = self.draw(st.sampled_from(list(items)))
        return chosen

    def number(self, low: int, high: int) -> int:
        """Draw an integer, both ends included; shrinks to the first."""
        return int(self.draw(st.integers(low, max(low, high))))

    def rarely(self, one_in: int = 4) -> bool:
        """Draw True once in so many times; shrinks to False."""
        return self.number(1, one_in) == one_in

    # building ---------------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """Return a name that is not taken."""
        self._count += 1
        return f"{hint}_{self._count}"

    def input(self, shape: Sequence[int]) -> Value:
        """Add a graph input; its batch size is open where the model is dynamic."""
        name = self.fresh("input")
        declared: list[int | str] = ["N" if self.dynamic else shape[0], *shape[1:]]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, declared))
        return Value(name, tuple(shape))

    def node(self, op: str, inputs: Sequence[Value | str], shape: Sequence[int], **attributes: Any) -> Value:
        """Add a node with one output of the given shape."""
        return self.split(op, inputs, [shape], **attributes)[0]

    def on(self, op: str, x: Value, *others: Value | str, **attributes: Any) -> Value:
        """Add a node whose output has the shape of its first input."""
        return self.node(op, [x, *others], x.shape, **attributes)

    def split(
        self, op: str, inputs: Sequence[Value | str], shapes: Sequence[Sequence[int]], **attributes: Any
    ) -> list[Value]:
        """Add a node with several outputs."""
        outputs = [Value(self.fresh(op.lower()), tuple(shape)) for shape in shapes]
        read = [item.name if isinstance(item, Value) else item for item in inputs]
        self.nodes.append(
            helper.make_node(op, read, [value.name for value in outputs], name=self.fresh("node"), **attributes)
        )
        return outputs

    def store(self, array: Array, hint: str = "const") -> str:
        """Store a constant, as an initializer or now and then as a `Constant` node."""
        name = self.fresh(hint)
        tensor = numpy_helper.from_array(np.array(array, order="C"), name)
        # Before operator set 9 a Constant node holds floats only.
        if self.rarely(6) and (self.opset >= 9 or array.dtype == np.float32):
            self.nodes.append(helper.make_node("Constant", [], [name], name=self.fresh("node"), value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def ints(self, values: Sequence[int]) -> str:
        """Store a list of integers."""
        return self.store(np.asarray(values, dtype=np.int64), "ints")

    def sized(
        self, op: str, x: Value, shape: Sequence[int], name: str, values: Sequence[int], since: int, **attributes: Any
    ) -> Value:
        """Add a node whose integers are an attribute `name` before an operator set, and an input from it on."""
        if self.opset < since:
            return self.node(op, [x], shape, **{name: list(values)}, **attributes)
        return self.node(op, [x, self.ints(values)], shape, **attributes)

    # weights ----------------------------------------------------------------------------------

    def vector(self, shape: Sequence[int], *, positive: bool = False) -> str:
        """Return a per-channel constant; constants of one shape are shared now and then."""
        kind = "positive" if positive else "vector"

        def make() -> str:
            value = self.random.standard_normal(tuple(shape)).astype(np.float32)
            return self.store(np.abs(value) + np.float32(0.5) if positive else value, kind)

        return self._shared(kind, shape, make)

    def weight(self, shape: Sequence[int], fan_in: int) -> str:
        """Return a weight: stored, or behind layout-only or computing nodes; shared now and then."""

        def make() -> str:
            value = self.random.standard_normal(tuple(shape)) * (1.5 / max(fan_in, 1)) ** 0.5
            return self._spelt(value.astype(np.float32))

        return self._shared("weight", shape, make)

    def _shared(self, kind: str, shape: Sequence[int], make: Callable[[], str]) -> str:
        known = self._stored.setdefault((kind, tuple(shape)), [])
        if known and self.rarely(5):
            return self.choose(known)
        known.append(make())
        return known[-1]

    def _spelt(self, value: Array) -> str:
        """Store a weight in one of the ways in which exporters do."""
        way = self.choose(("plain", "plain", "plain", "Identity", "Transpose", "Cast", "Unsqueeze", "Reshape", "Mul"))
        if way == "plain":
            return self.store(value, "weight")
        if way == "Identity":
            return self.node("Identity", [self.store(value, "weight")], value.shape).name
        if way == "Cast":
            source = self.store(value.astype(np.float64), "weight")
            return self.node("Cast", [source], value.shape, to=TensorProto.FLOAT).name
        if way == "Mul":
            factor = self.store(np.asarray(2.0, dtype=np.float32), "factor")
            return self.node("Mul", [self.store(value / 2, "weight"), factor], value.shape).name
        if way == "Reshape":
            source = self.store(value.reshape(value.shape[0], -1), "weight")
            return self.node("Reshape", [source, self.ints(value.shape)], value.shape).name
        if way == "Unsqueeze":
            stored = Value(self.store(value[None], "weight"), (1, *value.shape))
            return self.sized("Squeeze", stored, value.shape, "axes", [0], 13).name
        perm = [int(axis) for axis in np.roll(np.arange(value.ndim), self.number(1, value.ndim - 1))]
        stored = Value(self.store(value.transpose(np.argsort(perm)), "weight"), ())
        return self.node("Transpose", [stored], value.shape, perm=perm).name

    # reshaping --------------------------------------------------------------------------------

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Regroup elements; the target is literal, with 0 and -1 where they fit, or computed from a shape."""
        literal: list[int] = []
        for axis, size in enumerate(shape):
            forms = [] if axis == 0 and self.dynamic else [size]
            if axis < len(x.shape) and x.shape[axis] == size:
                forms.append(0)
            if -1 not in literal:
                forms.append(-1)
            literal.append(self.choose(forms))
        if self.rarely(3):
            target = self._computed_target(x, shape, literal)
            return self.node("Reshape", [x, target], shape)
        return self.node("Reshape", [x, self.ints(literal)], shape)

    def size_of(self, x: Value, axis: int) -> str:
        """Compute one size from a shape, as a vector of length 1."""
        shape = self.node("Shape", [x], (len(x.shape),))
        if self.rarely(3):
            return self.node("Gather", [shape, self.ints([axis])], (1,)).name
        if self.rarely(3) and self.opset >= 10:
            return self.node("Slice", [shape, self.ints([axis]), self.ints([axis + 1])], (1,)).name
        index = self.store(np.asarray(axis, dtype=np.int64), "index")
        scalar = self.node("Gather", [shape, index], (), axis=0)
        return self.sized("Unsqueeze", scalar, (1,), "axes", [0], 13).name

    def _computed_target(self, x: Value, shape: Sequence[int], literal: Sequence[int]) -> str:
        """Spell a target as a Concat of literals and of sizes read from shapes."""
        parts = []
        for axis, size in enumerate(shape):
            equal = [at for at, own in enumerate(x.shape) if own == size and (at == 0) == (axis == 0)]
            parts.append(
                self.size_of(x, self.choose(equal)) if equal and not self.rarely(3) else self.ints([literal[axis]])
            )
        return self.node("Concat", parts, (len(shape),), axis=0).name
