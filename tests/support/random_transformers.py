# SPDX-License-Identifier: Apache-2.0
"""Random transformers: blocks of attention and of a hidden layer, in the forms in which exporters write them."""

from __future__ import annotations

from math import prod, sqrt

import hypothesis.strategies as st
import numpy as np
from random_drafts import Draft, Draw, Value
from random_layers import attention, conv, dense
from random_models import Case, finish

__all__ = ["transformers"]

OPSETS = (17, 13, 18, 20, 21, 23, 24)


@st.composite
def transformers(draw: Draw) -> Case:
    """Draw a model of some blocks on tokens (N, tokens, features)."""
    dynamic = draw(st.booleans())
    d = Draft(draw, draw(st.sampled_from(OPSETS)), draw(st.integers(0, 2**16)), dynamic=dynamic)
    x = _tokens(d, 1 if dynamic else d.choose((1, 2)))
    for _ in range(d.choose((1, 2, 3))):
        x = _block(d, x, d.choose((_hidden, _attention)))
    ends = [_classify(d, _norm(d, x))]
    return Case(finish(d, ends), dynamic)


def _tokens(d: Draft, batch: int) -> Value:
    """Embed an image in patches, or tokens that come as features."""
    features = d.choose((4, 6, 2))
    if d.rarely(2):
        image = d.input((batch, 3, 4, 4))
        patches = conv(d, image, features, point=True)
        flat = d.reshape(patches, (batch, features, 16))
        tokens = d.node("Transpose", [flat], (batch, 16, features), perm=[0, 2, 1])
    else:
        tokens = dense(d, d.input((batch, d.choose((3, 5)), 3)), features)
    if d.rarely(2):
        tokens = d.on("Add", tokens, d.vector((1, *tokens.shape[1:])))
    return tokens


def _block(d: Draft, x: Value, layer: object) -> Value:
    """Add a layer and its residual connection, with a normalisation before, behind or not at all."""
    kind = d.choose(("before", "behind", "none"))
    inside = layer(d, _norm(d, x) if kind == "before" else x)  # type: ignore[operator]
    if d.rarely(3):
        inside = d.on("Mul", inside, d.vector((inside.shape[-1],)))
    result = d.node("Add", d.choose(([x, inside], [inside, x])), x.shape)
    return _norm(d, result) if kind == "behind" else result


def _norm(d: Draft, x: Value) -> Value:
    """Normalise over the features: an operator or spelt out, with or without the mean."""
    kinds = ["spelt", "none", "root"]
    kinds += ["LayerNormalization"] if d.opset >= 17 else []
    kinds += ["RMSNormalization"] if d.opset >= 23 else []
    kind, features = d.choose(kinds), x.shape[-1:]
    if kind == "none":
        return x
    if kind.endswith("Normalization"):
        more = [d.vector(features)] if kind == "LayerNormalization" else []
        return d.on(kind, x, d.vector(features, positive=True), *more)
    if kind == "spelt":
        x = d.on("Sub", x, _mean(d, x))
    power = _mean(d, d.on("Mul", x, x) if d.rarely(2) else d.on("Pow", x, _number(d, 2.0)))
    root = d.on("Sqrt", d.on("Add", power, _number(d, 1e-5)))
    return d.on("Mul", d.on("Div", x, root), d.vector(features, positive=True))


def _mean(d: Draft, x: Value) -> Value:
    return d.sized("ReduceMean", x, (*x.shape[:-1], 1), "axes", [-1], 18, keepdims=1)


def _number(d: Draft, value: float) -> str:
    return d.store(np.asarray(value, dtype=np.float32))


def _hidden(d: Draft, x: Value) -> Value:
    """Add a hidden layer: plain, gated by another layer, or by the other half of one."""
    width, features = d.number(2, 8), x.shape[-1]
    kind = d.choose(("plain", "gated", "halves"))
    if kind == "plain":
        return dense(d, _bend(d, dense(d, x, width)), features)
    if kind == "gated":
        return dense(d, d.on("Mul", _bend(d, dense(d, x, width)), dense(d, x, width)), features)
    both = dense(d, x, 2 * width)
    half = (*x.shape[:-1], width)
    inputs = [both] if d.opset < 18 and d.rarely(2) else [both, d.ints([width, width])]
    first, second = d.split("Split", inputs, [half, half], axis=-1)
    return dense(d, d.on("Mul", _bend(d, first), second), features)


def _bend(d: Draft, x: Value) -> Value:
    """Apply an activation; Gelu as an operator or by Erf."""
    kind = d.choose(("Relu", "Gelu", "Erf", "Silu"))
    if kind == "Gelu" and d.opset >= 20:
        return d.on("Gelu", x, approximate=d.choose(("none", "tanh")))
    if kind == "Silu":
        return d.on("Mul", x, d.on("Sigmoid", x))
    if kind == "Relu":
        return d.on("Relu", x)
    error = d.on("Erf", d.on("Div", x, _number(d, sqrt(2.0))))
    return d.on("Mul", d.on("Mul", x, d.on("Add", error, _number(d, 1.0))), _number(d, 0.5))


def _attention(d: Draft, x: Value) -> Value:
    """Add attention in one of its spellings."""
    kinds = ["separate", "packed", "halves", "einsum"] + (["operator", "operator"] if d.opset >= 23 else [])
    kind = d.choose(kinds)
    if kind == "separate":
        found = attention(d, x)
        assert found is not None
        return found[0]
    heads, size = d.choose((2, 1, 3)), d.choose((2, 3))
    if kind == "operator":
        mixed = _operator(d, x, heads, size)
    elif kind == "einsum":
        mixed = _einsum(d, x, heads, size)
    else:
        mixed = _mix(d, *(_packed if kind == "packed" else _thirds)(d, x, heads, size))
    return dense(d, mixed, x.shape[-1])


def _packed(d: Draft, x: Value, heads: int, size: int) -> list[Value]:
    """Make query, key and value (N, heads, tokens, size) in one product, taken apart on an axis of length 3."""
    batch, tokens, _ = x.shape
    order = d.choose(("before", "behind"))
    shape = (batch, tokens, 3, heads, size) if order == "before" else (batch, tokens, heads, 3, size)
    perm = [2, 0, 3, 1, 4] if order == "before" else [3, 0, 2, 1, 4]
    three = d.reshape(dense(d, x, 3 * heads * size), shape)
    moved = d.node("Transpose", [three], [shape[axis] for axis in perm], perm=perm)
    part = moved.shape[1:]
    if d.rarely(2):
        split = d.split("Split", [moved, d.ints([1, 1, 1])], [(1, *part)] * 3, axis=0)
        return [d.sized("Squeeze", each, part, "axes", [0], 13) for each in split]
    indices = [d.store(np.asarray(at, dtype=np.int64), "index") for at in range(3)]
    return [d.node("Gather", [moved, index], part, axis=0) for index in indices]


def _thirds(d: Draft, x: Value, heads: int, size: int) -> list[Value]:
    """Make query, key and value in one product that is split into thirds."""
    batch, tokens, _ = x.shape
    all_three = dense(d, x, 3 * heads * size)
    third = (batch, tokens, heads * size)
    inputs = [all_three] if d.opset < 18 and d.rarely(2) else [all_three, d.ints([heads * size] * 3)]
    parts = [d.reshape(each, (batch, tokens, heads, size)) for each in d.split("Split", inputs, [third] * 3, axis=2)]
    return [d.node("Transpose", [each], (batch, heads, tokens, size), perm=[0, 2, 1, 3]) for each in parts]


def _mix(d: Draft, query: Value, key: Value, value: Value) -> Value:
    """Mix values (N, heads, tokens, size) by the products of queries and keys; returns (N, tokens, features)."""
    batch, heads, tokens, size = query.shape
    turned = d.node("Transpose", [key], (batch, heads, size, tokens), perm=[0, 1, 3, 2])
    if d.rarely(2):
        query = d.on("Mul", query, _number(d, size**-0.5))
    scores = d.node("MatMul", [query, turned], (batch, heads, tokens, tokens))
    if d.rarely(2):  # a mask, or a bias for each head
        scores = d.on("Add", scores, d.vector(d.choose(((tokens, tokens), (1, heads, tokens, tokens)))))
    mixed = d.node("MatMul", [d.on("Softmax", scores, axis=-1), value], query.shape)
    back = d.node("Transpose", [mixed], (batch, tokens, heads, size), perm=[0, 2, 1, 3])
    return d.reshape(back, (batch, tokens, heads * size))


def _einsum(d: Draft, x: Value, heads: int, size: int) -> Value:
    """Attention by `Einsum`."""
    batch, tokens, _ = x.shape
    split = (batch, tokens, heads, size)
    query, key, value = (d.reshape(dense(d, x, heads * size), split) for _ in range(3))
    scores = d.node("Einsum", [query, key], (batch, heads, tokens, tokens), equation="bqhd,bkhd->bhqk")
    weights = d.on("Softmax", d.on("Mul", scores, _number(d, size**-0.5)), axis=-1)
    mixed = d.node("Einsum", [weights, value], split, equation="bhqk,bkhd->bqhd")
    return d.reshape(mixed, (batch, tokens, heads * size))


def _operator(d: Draft, x: Value, heads: int, size: int) -> Value:
    """Attention by the operator, on packed heads or on an axis of heads; several queries may share a key."""
    batch, tokens, _ = x.shape
    shared = d.choose((1, 2))
    counts = (heads * shared, heads, heads)
    parts = [dense(d, x, count * size) for count in counts]
    result = (batch, tokens, counts[0] * size)
    if d.rarely(2):
        return d.node("Attention", parts, result, q_num_heads=counts[0], kv_num_heads=heads)
    apart = [
        d.node(
            "Transpose",
            [d.reshape(part, (batch, tokens, count, size))],
            (batch, count, tokens, size),
            perm=[0, 2, 1, 3],
        )
        for part, count in zip(parts, counts, strict=True)
    ]
    mixed = d.node("Attention", apart, apart[0].shape)
    back = d.node("Transpose", [mixed], (batch, tokens, counts[0], size), perm=[0, 2, 1, 3])
    return d.reshape(back, result)


def _classify(d: Draft, x: Value) -> Value:
    """Read the first token, the mean of all, or all of them."""
    batch, _, features = x.shape
    kind = d.choose(("first", "mean", "all", "tokens"))
    if kind == "first":
        index = d.store(np.asarray(0, dtype=np.int64), "index")
        x = d.node("Gather", [x, index], (batch, features), axis=1)
    elif kind == "mean":
        x = d.sized("ReduceMean", x, (batch, features), "axes", [1], 18, keepdims=0)
    elif kind == "all":
        x = d.reshape(x, (batch, prod(x.shape[1:])))
    return dense(d, x, 3)
