# SPDX-License-Identifier: Apache-2.0
"""Random quantised networks: QDQ pairs, integer operators with scales, and scales found while the model runs.

Weights stay within 6 bits and a sign, since sums of pairs of larger ones saturate on processors without
instructions for 8-bit products, in another order of channels at another place.
"""

from __future__ import annotations

from math import prod

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from random_drafts import Draft, Draw, Value
from random_models import Case, finish

__all__ = ["quantised"]

OPSETS = (17, 13, 21, 19)


@st.composite
def quantised(draw: Draw) -> Case:
    """Draw a convolutional network in one of the three forms."""
    d = Draft(draw, draw(st.sampled_from(OPSETS)), draw(st.integers(0, 2**16)), dynamic=False)
    form = d.choose(("pairs", "operators", "running"))
    layers = {"pairs": _Pairs, "operators": _Operators, "running": _Running}[form](d)
    x = layers.begin(d.input((d.choose((1, 2)), 3, 4, 4)))
    x = layers.conv(x, d.number(2, 8), 1)
    for _ in range(d.choose((1, 2, 3, 0))):
        kind = d.choose(("dense", "depthwise", "residual"))
        if kind == "dense":
            x = layers.conv(x, d.number(2, 8), 1)
        elif kind == "depthwise":
            x = layers.conv(x, x.shape[1], x.shape[1])
        else:
            x = layers.add(x, layers.conv(layers.conv(x, d.number(2, 6), 1), x.shape[1], 1))
    return Case(finish(d, [layers.classify(x)]), dynamic=False)


class _Form:
    """What the three forms have in common: how weights and scales are stored."""

    def __init__(self, d: Draft) -> None:
        self.d = d
        self.elem = d.choose((TensorProto.UINT8, TensorProto.INT8))
        self.zero = 128 if self.elem == TensorProto.UINT8 else 0
        if d.rarely(2):
            self.zero += d.number(1, 20)

    def weight(self, shape: tuple[int, ...], axis: int) -> tuple[str, str, str, npt.NDArray[np.float32]]:
        """Store an 8-bit weight; returns it with its scale and zero point, for all or for each slice of an axis."""
        d = self.d
        stored = d.random.integers(-63, 64, shape).astype(np.int8)
        size = shape[axis] if d.rarely(2) else None
        fan_in = prod(shape) // shape[axis]
        scale = np.asarray(d.random.uniform(0.5, 1.5, size) * 0.03 / fan_in**0.5, dtype=np.float32)
        zero = np.zeros(() if size is None else (size,), dtype=np.int8)
        return d.store(stored, "weight"), d.store(scale, "scale"), d.store(zero, "zero"), scale

    def step(self) -> tuple[str, str, float]:
        """Store scale and zero point of an activation."""
        d = self.d
        scale = d.choose((0.05, 0.02))
        kind = np.uint8 if self.elem == TensorProto.UINT8 else np.int8
        return (
            d.store(np.asarray(scale, dtype=np.float32), "scale"),
            d.store(np.asarray(self.zero, dtype=kind), "zero"),
            scale,
        )

    def kernel(self, x: Value, channels: int, groups: int) -> tuple[tuple[int, ...], dict[str, object]]:
        """Draw the shape of a filter, and the attributes that keep the size of the map."""
        k = self.d.choose((1, 3))
        return (channels, x.shape[1] // groups, k, k), {"kernel_shape": [k, k], "pads": [k // 2] * 4, "group": groups}


class _Pairs(_Form):
    """Floats between pairs of `QuantizeLinear` and `DequantizeLinear`."""

    def begin(self, x: Value) -> Value:
        return self.pair(x)

    def pair(self, x: Value) -> Value:
        scale, zero, _ = self.step()
        return self.d.on("DequantizeLinear", self.d.on("QuantizeLinear", x, scale, zero), scale, zero)

    def real(self, shape: tuple[int, ...], axis: int) -> tuple[str, npt.NDArray[np.float32]]:
        weight, scale, zero, value = self.weight(shape, axis)
        attributes = {"axis": axis} if value.ndim else {}
        return self.d.node("DequantizeLinear", [weight, scale, zero], shape, **attributes).name, value

    def bias(self, scale: npt.NDArray[np.float32], channels: int) -> str:
        """Store a bias as 32-bit integers."""
        d = self.d
        stored = d.store(d.random.integers(-200, 200, channels).astype(np.int32), "bias")
        step = d.store(np.asarray(scale * np.float32(0.05), dtype=np.float32), "scale")
        zero = d.store(np.zeros(scale.shape, dtype=np.int32), "zero")
        attributes = {"axis": 0} if scale.ndim else {}
        return d.node("DequantizeLinear", [stored, step, zero], (channels,), **attributes).name

    def conv(self, x: Value, channels: int, groups: int) -> Value:
        d = self.d
        shape, attributes = self.kernel(x, channels, groups)
        weight, scale = self.real(shape, 0)
        inputs: list[Value | str] = [x, weight]
        if d.rarely(2):
            inputs.append(self.bias(scale, channels) if d.rarely(2) else d.vector((channels,)))
        y = d.node("Conv", inputs, (x.shape[0], channels, *x.shape[2:]), **attributes)
        return self.pair(d.on("Relu", y) if d.rarely(2) else y)

    def add(self, x: Value, y: Value) -> Value:
        return self.pair(self.d.on("Add", x, y))

    def classify(self, x: Value) -> Value:
        d = self.d
        mean = self.pair(d.node("GlobalAveragePool", [x], (*x.shape[:2], 1, 1)))
        flat = d.node("Flatten", [mean], x.shape[:2])
        axis = d.number(0, 1)
        weight, _ = self.real((3, x.shape[1]) if axis == 0 else (x.shape[1], 3), axis)
        return d.node("Gemm", [flat, weight, d.vector((3,))], (x.shape[0], 3), transB=1 - axis)


class _Operators(_Form):
    """`QLinearConv`, `QLinearMatMul`, and onnxruntime's `QLinearAdd`."""

    def begin(self, x: Value) -> Value:
        self.given = self.step()
        return self.d.on("QuantizeLinear", x, *self.given[:2])

    def conv(self, x: Value, channels: int, groups: int) -> Value:
        d = self.d
        shape, attributes = self.kernel(x, channels, groups)
        weight, scale, zero, value = self.weight(shape, 0)
        result = self.step()
        inputs: list[Value | str] = [x, *self.given[:2], weight, scale, zero, *result[:2]]
        if d.rarely(2):
            del value
            inputs.append(d.store(d.random.integers(-200, 200, channels).astype(np.int32), "bias"))
        self.before, self.given = self.given, result
        return d.node("QLinearConv", inputs, (x.shape[0], channels, *x.shape[2:]), **attributes)

    def add(self, x: Value, y: Value) -> Value:
        # The scale of x is not at hand any more; any one will do, since only what is done to the integers counts.
        result = self.step()
        inputs: list[Value | str] = [x, *self.before[:2], y, *self.given[:2], *result[:2]]
        self.given = result
        return self.d.node("QLinearAdd", inputs, x.shape, domain="com.microsoft")

    def classify(self, x: Value) -> Value:
        d = self.d
        real = d.on("DequantizeLinear", x, *self.given[:2])
        flat = d.node("Flatten", [d.node("GlobalAveragePool", [real], (*x.shape[:2], 1, 1))], x.shape[:2])
        first, result = self.step(), self.step()
        stored = d.on("QuantizeLinear", flat, *first[:2])
        weight, scale, zero, _ = self.weight((x.shape[1], 3), 1)
        inputs: list[Value | str] = [stored, *first[:2], weight, scale, zero, *result[:2]]
        product = d.node("QLinearMatMul", inputs, (x.shape[0], 3))
        return d.on("DequantizeLinear", product, *result[:2])


class _Running(_Form):
    """`ConvInteger` and `MatMulInteger` on scales found by `DynamicQuantizeLinear`."""

    def begin(self, x: Value) -> Value:
        return x

    def dynamic(self, x: Value) -> tuple[Value, Value, Value]:
        stored, scale, zero = self.d.split("DynamicQuantizeLinear", [x], [x.shape, (), ()])
        return stored, scale, zero

    def real(self, product: Value, scale: Value, own: str, shape: tuple[int, ...]) -> Value:
        """Turn sums of products into real numbers; the scales of slices of a weight have the shape given."""
        d = self.d
        floats = d.on("Cast", product, to=TensorProto.FLOAT)
        step = d.node("Mul", [scale, own], shape)
        return d.on("Mul", floats, step)

    def conv(self, x: Value, channels: int, groups: int) -> Value:
        d = self.d
        stored, step, zero = self.dynamic(x)
        shape, attributes = self.kernel(x, channels, groups)
        weight = d.store(d.random.integers(-63, 64, shape).astype(np.int8), "weight")
        scale = np.full((1,) if d.rarely(2) else (1, channels, 1, 1), 0.01, dtype=np.float32)
        product = d.node("ConvInteger", [stored, weight, zero], (x.shape[0], channels, *x.shape[2:]), **attributes)
        y = self.real(product, step, d.store(scale, "scale"), scale.shape)
        if d.rarely(2):
            y = d.on("Add", y, d.vector((1, channels, 1, 1)))
        return d.on("Relu", y) if d.rarely(2) else y

    def add(self, x: Value, y: Value) -> Value:
        return self.d.on("Add", x, y)

    def classify(self, x: Value) -> Value:
        d = self.d
        flat = d.node("Flatten", [d.node("GlobalAveragePool", [x], (*x.shape[:2], 1, 1))], x.shape[:2])
        stored, step, zero = self.dynamic(flat)
        weight = d.store(d.random.integers(-63, 64, (x.shape[1], 3)).astype(np.int8), "weight")
        product = d.node("MatMulInteger", [stored, weight, zero], (x.shape[0], 3))
        scale = np.full((1,) if d.rarely(2) else (3,), 0.01, dtype=np.float32)
        return self.real(product, step, d.store(scale, "scale"), scale.shape)
