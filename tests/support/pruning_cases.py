# SPDX-License-Identifier: Apache-2.0
"""Tiny networks of several kinds and a task that they can learn, for the tests of pruning while training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, numpy_helper
from tiny_models import model
from training_cases import Array, Arrays, folded, images, normalised

import graphprune
from graphprune.data.source import Source
from graphprune.recovery.recover_options import RecoverOptions
from graphprune.training.finetune_options import FinetuneOptions
from graphprune.training.pruning.method import Method
from graphprune.training.pruning.train import Trained, TrainOptions

__all__ = [
    "KINDS",
    "QUICK",
    "concatenated",
    "coupled",
    "depthwise",
    "grouped",
    "labelled",
    "mapping",
    "residual",
    "tokens_first",
    "trained",
    "transformer",
    "unlabelled",
]

RESIDUAL = """(float[n,3,8,8] image) => (float[n,4] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w0)
    b = BatchNormalization (a, s0, b0, m0, var0)
    c = Relu (b)
    d = Conv <pads = [1, 1, 1, 1]> (c, w1)
    e = BatchNormalization (d, s1, b1, m1, var1)
    f = Relu (e)
    g = Conv <pads = [1, 1, 1, 1]> (f, w2)
    h = BatchNormalization (g, s2, b2, m2, var2)
    i = Add (h, c)
    j = Relu (i)
    k = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (j, w3)
    l = BatchNormalization (k, s3, b3, m3, var3)
    o = Relu (l)
    p = Conv <pads = [1, 1, 1, 1]> (o, w4)
    q = BatchNormalization (p, s4, b4, m4, var4)
    r = Slice (j, starts, ends, axes, steps)
    t = Pad (r, padding)
    u = Add (q, t)
    v = Relu (u)
    x = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (v)
    y = Flatten (x)
    scores = Gemm <transB = 1> (y, head, offset)
}"""

DEPTHWISE = """(float[n,3,8,8] image) => (float[n,4] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w0)
    b = BatchNormalization (a, s0, b0, m0, var0)
    c = Relu (b)
    d = Conv <group = 8, pads = [1, 1, 1, 1]> (c, w1)
    e = BatchNormalization (d, s1, b1, m1, var1)
    f = Clip (e, low, high)
    g = Conv (f, w2)
    h = BatchNormalization (g, s2, b2, m2, var2)
    i = Relu (h)
    j = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (i)
    k = Flatten (j)
    scores = Gemm <transB = 1> (k, w3, b3)
}"""

CONCATENATED = """(float[n,3,8,8] image) => (float[n,4] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w0)
    b = BatchNormalization (a, s0, b0, m0, var0)
    c = Relu (b)
    d = Conv (c, w1)
    e = BatchNormalization (d, s1, b1, m1, var1)
    f = Relu (e)
    g = Concat <axis = 1> (c, f)
    h = Conv (g, w2, b2)
    i = Relu (h)
    j = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (i)
    k = Flatten (j)
    scores = Gemm <transB = 1> (k, w3, b3)
}"""

TRANSFORMER = """(float[n,3,8,8] image) => (float[n,4] scores) {
    a = Conv <kernel_shape = [4, 4], strides = [4, 4]> (image, patch, patch_bias)
    b = Reshape (a, to_tokens)
    t = Transpose <perm = [0, 2, 1]> (b)
    u = LayerNormalization <axis = -1> (t, ln0, lb0)
    q = MatMul (u, wq)
    k = MatMul (u, wk)
    v = MatMul (u, wv)
    q1 = Reshape (q, to_heads)
    k1 = Reshape (k, to_heads)
    v1 = Reshape (v, to_heads)
    q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
    k2 = Transpose <perm = [0, 2, 3, 1]> (k1)
    v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
    s = MatMul (q2, k2)
    p = Softmax <axis = -1> (s)
    o = MatMul (p, v2)
    o1 = Transpose <perm = [0, 2, 1, 3]> (o)
    o2 = Reshape (o1, from_heads)
    o3 = MatMul (o2, wo)
    r = Add (o3, t)
    w = LayerNormalization <axis = -1> (r, ln1, lb1)
    x1 = MatMul (w, up)
    x2 = Add (x1, up_bias)
    x3 = Relu (x2)
    x4 = MatMul (x3, down)
    y = Add (x4, r)
    z = Flatten (y)
    scores = Gemm <transB = 1> (z, head, head_bias)
}"""

TOKENS_FIRST = (
    TRANSFORMER.replace("q = MatMul (u, wq)", "uf = Transpose <perm = [1, 0, 2]> (u)\n    q = MatMul (uf, wq)")
    .replace("MatMul (u, wk)", "MatMul (uf, wk)")
    .replace("MatMul (u, wv)", "MatMul (uf, wv)")
    .replace("<perm = [0, 2, 1, 3]> (q1)", "<perm = [1, 2, 0, 3]> (q1)")
    .replace("<perm = [0, 2, 3, 1]> (k1)", "<perm = [1, 2, 3, 0]> (k1)")
    .replace("<perm = [0, 2, 1, 3]> (v1)", "<perm = [1, 2, 0, 3]> (v1)")
    .replace("<perm = [0, 2, 1, 3]> (o)", "<perm = [2, 0, 1, 3]> (o)")
    .replace(
        "r = Add (o3, t)", "of = Reshape (o3, apart)\n    os = Transpose <perm = [1, 0, 2]> (of)\n    r = Add (os, t)"
    )
)
"""The same with the tokens on axis 0, and the rows of all tokens and samples on one axis, as torch has them inside."""

MAP = """(float[n,3,8,8] image) => (float[n,2,8,8] y) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w0, b0)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w1, b1)
    d = Relu (c)
    y = Conv (d, w2, b2)
}"""


def _norms(*widths: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}{index}": (width,) for index, width in enumerate(widths) for name in ("s", "b", "m", "var")}


def _tamed(proto: ModelProto) -> ModelProto:
    """Scale weights to what an initialisation would give, so that a few steps do not blow anything up."""
    for tensor in proto.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim > 1:
            fan = value[0].size if value.ndim > 2 else min(value.shape)
            tensor.CopyFrom(numpy_helper.from_array((value / np.sqrt(fan)).astype(np.float32), tensor.name))
    return proto


def residual() -> ModelProto:
    """Return a residual network whose second shortcut is padded with channels, as those for CIFAR are."""
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3), "w3": (16, 8, 3, 3), "w4": (16, 16, 3, 3)}
    lists = {"starts": [0, 0], "ends": [1 << 30, 1 << 30], "axes": [2, 3], "steps": [2, 2]}
    lists["padding"] = [0, 4, 0, 0, 0, 4, 0, 0]
    return _tamed(model(RESIDUAL, {**shapes, **_norms(8, 8, 8, 16, 16), "head": (4, 64), "offset": (4,)}, **lists))


def coupled() -> ModelProto:
    """Return a residual network with a single group."""
    return _tamed(normalised())


def depthwise() -> ModelProto:
    """Return a network with a depthwise convolution."""
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 1, 3, 3), "w2": (12, 8, 1, 1), "w3": (4, 48), "b3": (4,)}
    low, high = np.float32(0), np.float32(6)
    return _tamed(model(DEPTHWISE, {**shapes, **_norms(8, 8, 12)}, low=low, high=high))


def concatenated() -> ModelProto:
    """Return a network whose branches are concatenated."""
    shapes = {"w0": (8, 3, 3, 3), "w1": (6, 8, 1, 1), "w2": (10, 14, 1, 1), "w3": (4, 40), "b3": (4,), "b2": (10,)}
    return _tamed(model(CONCATENATED, {**shapes, **_norms(8, 6)}))


def grouped() -> ModelProto:
    """Return a network with a convolution on the image whose groups keep positions of their own."""
    text = DEPTHWISE.replace("d = Conv <group = 8, ", "d = Conv <").replace("a = Conv <", "a = Conv <group = 3, ")
    shapes = {"w0": (18, 1, 3, 3), "w1": (8, 18, 3, 3), "w2": (12, 8, 1, 1), "w3": (4, 48), "b3": (4,)}
    return _tamed(model(text, {**shapes, **_norms(18, 8, 12)}, low=np.float32(0), high=np.float32(6)))


def transformer() -> ModelProto:
    """Return a vision transformer of one block with four heads."""
    shapes = {"patch": (16, 3, 4, 4), "wq": (16, 16), "wk": (16, 16), "wv": (16, 16), "wo": (16, 16)}
    shapes |= {"up": (16, 24), "down": (24, 16), "head": (4, 64), "head_bias": (4,), "up_bias": (24,)}
    shapes |= dict.fromkeys(("patch_bias", "ln0", "lb0", "ln1", "lb1"), (16,))
    lists = {"to_tokens": [0, 16, 4], "to_heads": [0, 4, 4, 4], "from_heads": [0, 4, 16]}
    return _tamed(model(TRANSFORMER, shapes, **lists))


def tokens_first() -> ModelProto:
    """Return the same with samples on axis 1 inside of the attention, and mixed with tokens."""
    proto = transformer()
    own = model(TOKENS_FIRST, to_heads=[4, -1, 4, 4], from_heads=[-1, 16], apart=[4, -1, 16])
    names = {tensor.name for tensor in own.graph.initializer}
    own.graph.initializer.extend(item for item in proto.graph.initializer if item.name not in names)
    return own


def mapping() -> ModelProto:
    """Return a network that is no classifier."""
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 8, 3, 3), "w2": (2, 8, 1, 1), "b0": (8,), "b1": (8,), "b2": (2,)}
    return _tamed(model(MAP, shapes))


KINDS: dict[str, Callable[[], ModelProto]] = {
    "residual": residual,
    "folded": lambda: _tamed(folded()),
    "depthwise": depthwise,
    "concat": concatenated,
    "transformer": transformer,
    "tokens-first": tokens_first,
}

RECOVERY = RecoverOptions()
QUICK = FinetuneOptions(epochs=6, batch=32, augment="none", device="cpu", held_out=32)


def labelled(count: int = 160) -> Source:
    """Return noise in which one of four quarters is brighter: the class."""
    x = images(count)
    y = np.arange(count) % 4
    for row, kind in enumerate(y):
        top, left = 4 * (kind // 2), 4 * (kind % 2)
        x[row, :, top : top + 4, left : left + 4] += 1.5
    return Source.whole("quarters", Arrays({"image": x}, y.astype(np.int64)))


def unlabelled(count: int = 160, value: Array | None = None) -> Source:
    """Return noise without labels."""
    return Source.whole("noise", Arrays({"image": images(count) if value is None else value}))


def trained(
    made: ModelProto,
    method: Method,
    data: Source,
    how: FinetuneOptions = QUICK,
    share: float = 0.7,
    recovery: RecoverOptions | None = RECOVERY,
) -> Trained:
    """Run a method; check what holds for all of them."""
    solving = graphprune.SolveOptions(solver=method.solver, round_to=1)
    budget = graphprune.BudgetRequest("flops", share)
    found = graphprune.train(graphprune.load(made), data, budget, method, TrainOptions(how, solving, recovery=recovery))
    assert found.plan.budget.after <= found.plan.budget.limit
    assert found.plan.solver.name == method.name
    pruned = graphprune.apply(found.analysis, found.plan)
    assert graphprune.verify(found.analysis, pruned, found.plan).status in ("verified", "vacuous")
    return found
