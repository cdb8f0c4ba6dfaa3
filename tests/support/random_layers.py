# SPDX-License-Identifier: Apache-2.0
"""Random layers with weights or statistics: what a convolutional network is mostly made of.

A step takes a draft and a value, adds nodes, and returns the values it made, or None where it does not apply.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from random_drafts import Draft, Value

__all__ = ["LAYERS", "Step", "conv", "dense", "head"]

Step = Callable[[Draft, Value], list[Value] | None]
LARGEST = 4096
"""No step makes a value with more elements."""


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _is_map(x: Value) -> bool:
    return 3 <= len(x.shape) <= 5


def conv(d: Draft, x: Value, channels: int | None = None, *, point: bool = False) -> Value:
    """Add a convolution: dense, grouped, or depthwise with a multiplier."""
    inner, spatial = x.shape[1], x.shape[2:]
    groups = 1 if channels is not None else d.choose([1, 1, *_divisors(inner)])
    outer = channels or groups * d.number(1, max(1, min(8, 12 // groups)))
    kernel = [1 if point or size < 3 else d.choose((3, 1)) for size in spatial]
    strides = [1 if point or size < 4 else d.choose((1, 1, 2)) for size in spatial]
    pads = [size // 2 for size in kernel]
    shape = [
        (size + 2 * pad - k) // step + 1 for size, pad, k, step in zip(spatial, pads, kernel, strides, strict=True)
    ]
    inputs: list[Value | str] = [
        x,
        d.weight((outer, inner // groups, *kernel), inner // groups * prod(kernel)),
    ]
    if d.rarely(2):
        inputs.append(d.vector((outer,)))
    attributes = {"group": groups} if groups != 1 else {}
    return d.node(
        "Conv", inputs, (x.shape[0], outer, *shape), kernel_shape=kernel, pads=pads * 2, strides=strides, **attributes
    )


def convolution(d: Draft, x: Value) -> list[Value] | None:
    """Add any convolution."""
    return [conv(d, x)] if _is_map(x) else None


def transposed(d: Draft, x: Value) -> list[Value] | None:
    """Add a transposed convolution, dense or grouped."""
    if not _is_map(x) or x.size > LARGEST // 16:
        return None
    inner, spatial = x.shape[1], x.shape[2:]
    groups = d.choose([1, 1, *_divisors(inner)])
    each = d.number(1, max(1, min(8, 12 // groups)))
    step = d.choose((1, 2))
    inputs: list[Value | str] = [x, d.weight((inner, each, *[step for _ in spatial]), inner // groups)]
    if d.rarely(2):
        inputs.append(d.vector((groups * each,)))
    shape = (x.shape[0], groups * each, *(size * step for size in spatial))
    return [
        d.node(
            "ConvTranspose",
            inputs,
            shape,
            kernel_shape=[step for _ in spatial],
            strides=[step for _ in spatial],
            group=groups,
        )
    ]


def residual(d: Draft, x: Value) -> list[Value] | None:
    """Add a convolution of the same shape and its sum with the input."""
    if not _is_map(x):
        return None
    inside = d.on("Relu", conv(d, x, d.number(2, 8), point=True))
    branch = conv(d, inside, x.shape[1], point=True)
    return [d.node(d.choose(("Add", "Add", "Mul", "Sub")), [x, branch], x.shape)]


def twice(d: Draft, x: Value) -> list[Value] | None:
    """Apply one layer twice in a row, with the same weights."""
    if not _is_map(x):
        return None
    channels = x.shape[1]
    ones = [1 for _ in x.shape[2:]]
    weight = d.weight((channels, channels, *ones), channels)
    once = d.node("Conv", [x, weight], x.shape, kernel_shape=ones)
    return [once, d.node("Conv", [d.on("Relu", once), weight], x.shape, kernel_shape=ones)]


def batch_norm(d: Draft, x: Value) -> list[Value] | None:
    """Add a batch normalisation."""
    if not _is_map(x):
        return None
    channels = (x.shape[1],)
    vectors = [d.vector(channels, positive=positive) for positive in (True, False, False, True)]
    return [d.node("BatchNormalization", [x, *vectors], x.shape)]


def instance_norm(d: Draft, x: Value) -> list[Value] | None:
    """Add an instance normalisation, or a group normalisation spelt with one."""
    if not _is_map(x) or prod(x.shape[2:]) < 2:
        return None
    if d.rarely(2):
        return [d.node("InstanceNormalization", [x, d.vector(x.shape[1:2]), d.vector(x.shape[1:2])], x.shape)]
    groups = d.choose(_divisors(x.shape[1]))
    flat = d.reshape(x, (x.shape[0], groups, x.size // (x.shape[0] * groups)))
    ones = d.store(np.ones(groups, dtype=np.float32))
    zeros = d.store(np.zeros(groups, dtype=np.float32))
    return [d.reshape(d.node("InstanceNormalization", [flat, ones, zeros], flat.shape), x.shape)]


def group_norm(d: Draft, x: Value) -> list[Value] | None:
    """Add a group normalisation."""
    if not _is_map(x) or d.opset < 21:
        return None
    groups = d.choose(_divisors(x.shape[1]))
    length = x.shape[1:2]
    return [
        d.node("GroupNormalization", [x, d.vector(length, positive=True), d.vector(length)], x.shape, num_groups=groups)
    ]


def over_channels(d: Draft, x: Value) -> list[Value] | None:
    """Add something that mixes one axis: a softmax, a layer normalisation, LRN, a cumulative sum."""
    kinds = ["Softmax", "LpNormalization"]
    kinds += ["LRN"] if len(x.shape) == 4 else []
    kinds += ["LayerNormalization"] if d.opset >= 17 else []
    kinds += ["CumSum"] if d.opset >= 11 else []
    op, axis = d.choose(kinds), d.number(1, len(x.shape) - 1)
    if op == "LRN":
        return [d.node(op, [x], x.shape, size=3, alpha=0.5)]
    if op == "CumSum":
        return [d.node(op, [x, d.store(np.asarray(axis, dtype=np.int64))], x.shape)]
    if op == "LayerNormalization":
        return [d.node(op, [x, d.vector(x.shape[axis:]), d.vector(x.shape[axis:])], x.shape, axis=axis)]
    return [d.node(op, [x], x.shape, axis=axis)]


def pooling(d: Draft, x: Value) -> list[Value] | None:
    """Add a pool over windows."""
    if not _is_map(x) or min(x.shape[2:]) < 2:
        return None
    spatial = x.shape[2:]
    step = d.choose((1, 2))
    shape = (x.shape[0], x.shape[1], *((size - 2) // step + 1 for size in spatial))
    op = d.choose(("MaxPool", "AveragePool", "LpPool"))
    return [d.node(op, [x], shape, kernel_shape=[2 for _ in spatial], strides=[step for _ in spatial])]


def squeeze_excite(d: Draft, x: Value) -> list[Value] | None:
    """Scale channels by a small network on their means."""
    if not _is_map(x):
        return None
    batch, channels = x.shape[:2]
    ones = [1 for _ in x.shape[2:]]
    mean = d.node("GlobalAveragePool", [x], (batch, channels, *ones))
    if d.rarely(2):
        flat = d.node("Flatten", [mean], (batch, channels))
        gate = d.on("Sigmoid", dense(d, d.on("Relu", dense(d, flat, d.number(1, 4))), channels))
        gate = d.reshape(gate, mean.shape)
    else:
        inside = d.on("Relu", conv(d, mean, d.number(1, 4), point=True))
        gate = d.on("Sigmoid", conv(d, inside, channels, point=True))
    return [d.node("Mul", d.choose(([x, gate], [gate, x])), x.shape)]


def dense(d: Draft, x: Value, features: int) -> Value:
    """Add a product of a matrix with a weight: `Gemm` in all its spellings, or `MatMul`."""
    inner = x.shape[-1]
    if len(x.shape) == 2 and d.rarely(2):
        flip = d.number(0, 1)
        weight = d.weight((features, inner) if flip else (inner, features), inner)
        bias = d.vector(d.choose(((features,), (1, features), (1, 1), (1,))))
        attributes = d.choose(({}, {"alpha": 0.5, "beta": 2.0}))
        return d.node("Gemm", [x, weight, bias], (x.shape[0], features), transB=flip, **attributes)
    product = d.node("MatMul", [x, d.weight((inner, features), inner)], (*x.shape[:-1], features))
    return product if d.rarely(2) else d.node("Add", [product, d.vector((features,))], product.shape)


def linear(d: Draft, x: Value) -> list[Value] | None:
    """Add a product with a weight on the last axis, from the right or (transposed) from the left."""
    if len(x.shape) == 2 and d.rarely(4):
        turned = d.node("Transpose", [x], x.shape[::-1], perm=[1, 0])
        features = d.number(2, 8)
        weight = d.weight((x.shape[1], features), x.shape[1])
        bias = d.vector((features,))
        return [d.node("Gemm", [turned, weight, bias], (x.shape[0], features), transA=1)]
    if len(x.shape) > 2 and d.rarely(4):
        features = d.number(2, 8)
        weight = d.weight((features, x.shape[-2]), x.shape[-2])
        return [d.node("MatMul", [weight, x], (*x.shape[:-2], features, x.shape[-1]))]
    return [dense(d, x, d.number(1, 8))]


def attention(d: Draft, x: Value) -> list[Value] | None:
    """Add self-attention with heads over the tokens of a value (N, tokens, features)."""
    if len(x.shape) != 3 or x.shape[1] > 16:
        return None
    batch, tokens, features = x.shape
    heads, size = d.choose((2, 1, 3)), d.choose((2, 3))
    parts = []
    for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        split = d.reshape(dense(d, x, heads * size), (batch, tokens, heads, size))
        parts.append(d.node("Transpose", [split], [split.shape[axis] for axis in perm], perm=list(perm)))
    query, key, value = parts
    scores = d.node("MatMul", [query, key], (batch, heads, tokens, tokens))
    scores = d.node("Mul", [scores, _scale(d, query)], scores.shape)
    mixed = d.node("MatMul", [d.node("Softmax", [scores], scores.shape, axis=3), value], (batch, heads, tokens, size))
    back = d.node("Transpose", [mixed], (batch, tokens, heads, size), perm=[0, 2, 1, 3])
    return [dense(d, d.reshape(back, (batch, tokens, heads * size)), features)]


def _scale(d: Draft, query: Value) -> str:
    """Return the scale of attention, a literal or computed from the shape of the query."""
    if d.rarely(2):
        return d.store(np.asarray(query.shape[-1] ** -0.5, dtype=np.float32))
    size = d.node("Cast", [d.size_of(query, 3)], (1,), to=1)
    return d.node("Reciprocal", [d.node("Sqrt", [size], (1,))], (1,)).name


def head(d: Draft, x: Value) -> Value:
    """End a branch: pool, flatten, and classify, so that the channels before it are free."""
    kind = d.choose(("flatten", "pool", "flatten", "pool", "none"))
    if kind == "pool" and _is_map(x):
        x = d.node("GlobalAveragePool", [x], (*x.shape[:2], *[1 for _ in x.shape[2:]]))
    if kind != "none":
        if len(x.shape) > 2:
            flat = (x.shape[0], x.size // x.shape[0])
            x = d.node("Flatten", [x], flat) if d.rarely(2) else d.reshape(x, flat)
        return dense(d, x, 3)
    return x


LAYERS: tuple[Step, ...] = (
    *(convolution, convolution, residual, batch_norm, linear, transposed, pooling, squeeze_excite, twice),
    *(instance_norm, group_norm, over_channels, attention),
)
