# SPDX-License-Identifier: Apache-2.0
"""Attention as onnxruntime's optimiser and its model builders write it: whole heads, or a part of each."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from oracle_check import analyze, check
from tiny_models import model

from graphprune.labels.resolve import Attention
from graphprune.model.load import load
from graphprune.verification.verify import verify_pruned

CONTRIB = ', "com.microsoft": 1'
INPUT = "float[2,7,3] x"


def _own(
    sizes: tuple[int, int, int] = (24, 24, 24), *, extra: str = "", more: str = "", **shapes: tuple[int, ...]
) -> ModelProto:
    """Return `Attention` with four heads behind a product."""
    spelt = "" if len(set(sizes)) == 1 else f", qkv_hidden_sizes = [{', '.join(map(str, sizes))}]"
    text = f"""({INPUT}) => (float[2,7,2] y) {{
        h = MatMul (x, first)
        o = com.microsoft.Attention <num_heads = 4{spelt}{extra}> (h, w, b{more})
        y = MatMul (o, last)
    }}"""
    weights = {"first": (3, 8), "w": (8, sum(sizes)), "b": (sum(sizes),), "last": (sizes[2], 2)}
    return model(text, {**weights, **shapes}, domains=CONTRIB)


def _multi_head(*, value: int = 24, extra: str = "", more: str = "", **shapes: tuple[int, ...]) -> ModelProto:
    """Return `MultiHeadAttention` with four heads behind three products; the states it reads it also gives."""
    made = "o, nk, nv" if "pk" in more else "o"
    text = f"""({INPUT}) => (float[2,7,2] y) {{
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        {made} = com.microsoft.MultiHeadAttention <num_heads = 4{extra}> (q, k, v{more})
        y = MatMul (o, last)
    }}"""
    weights = {"wq": (3, 24), "wk": (3, 24), "wv": (3, value), "last": (value, 2)}
    return model(text, {**weights, **shapes}, domains=CONTRIB)


def _sizes(proto: ModelProto, attention: Attention) -> list[tuple[int, int]]:
    return sorted((group.size, group.channels) for group in analyze(proto, attention=attention).groups)


@pytest.mark.parametrize(
    ("proto", "attention", "sizes"),
    [
        (_own(), "heads", [(4, 18), (8, 1)]),
        (_own(), "head-dim", [(6, 4), (6, 8), (8, 1)]),
        (_own((24, 24, 12)), "heads", [(4, 15), (8, 1)]),
        (_own((24, 24, 12)), "head-dim", [(3, 4), (6, 8), (8, 1)]),
        (_own(extra=", scale = 0.3, unidirectional = 1"), "head-dim", [(6, 4), (6, 8), (8, 1)]),
        (_own(more=", , , bias", bias=(2, 4, 7, 7)), "heads", [(4, 18), (8, 1)]),
        (_own(more=", , , bias", bias=(1, 1, 7, 7)), "head-dim", [(6, 4), (6, 8), (8, 1)]),
        (_multi_head(), "heads", [(4, 6)]),
        (_multi_head(), "head-dim", [(6, 4), (6, 4)]),
        (_multi_head(value=12), "head-dim", [(3, 4), (6, 4)]),
        (_multi_head(more=", b", b=(72,)), "heads", [(4, 6)]),
        (_multi_head(more=", b", b=(72,)), "head-dim", [(6, 4), (6, 4)]),
        (_multi_head(more=", , , bias", bias=(1, 4, 7, 7)), "heads", [(4, 6)]),
        (_multi_head(more=", , , , pk, pv", pk=(2, 4, 5, 6), pv=(2, 4, 5, 6)), "heads", [(4, 6)]),
        (_multi_head(more=", , , , pk, pv", pk=(2, 4, 5, 6), pv=(2, 4, 5, 6)), "head-dim", [(6, 4), (6, 4)]),
    ],
)
def test_heads_or_parts_of_them_go(proto: ModelProto, attention: Attention, sizes: list[tuple[int, int]]) -> None:
    assert _sizes(proto, attention) == sizes
    assert check(analyze(proto, attention=attention)).effect > 1e-3


@pytest.mark.parametrize("proto", [_own(), _multi_head()])
def test_the_scale_of_whole_heads_is_spelt_out(proto: ModelProto) -> None:
    pruned = check(analyze(proto, attention="head-dim")).pruned
    (node,) = [node for node in pruned.graph.node if node.domain]
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    assert attributes["scale"] == pytest.approx(1 / sqrt(6))
    assert attributes["num_heads"] == 4


def _grouped(
    many: int = 4, few: int = 2, *, size: int = 8, packed: bool = False, extra: str = "", cache: str = ""
) -> ModelProto:
    """Return `GroupQueryAttention`, with separate or packed inputs, behind products."""
    length, past = 7, 7
    if packed:
        made, names = "p = MatMul (x, wp)", "p, ,"
        weights = {"wp": (3, (many + 2 * few) * size)}
    else:
        made, names = "q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)", "q, k, v"
        weights = {"wq": (3, many * size), "wk": (3, few * size), "wv": (3, few * size)}
    states = ", , " if not cache else ", pk, pv"
    text = f"""(float[2,{length},3] x) => (float[2,{length},2] y) {{
        {made}
        o, nk, nv = com.microsoft.GroupQueryAttention
            <num_heads = {many}, kv_num_heads = {few}{extra}> ({names}{states}, ends, total)
        y = MatMul (o, last)
    }}"""
    text = text.replace(", ends, total)", ", ends, total, cos, sin)") if "do_rotary" in extra else text
    tables = {"cos": (past, size // 2), "sin": (past, size // 2)} if "do_rotary" in extra else {}
    constants = {"ends": np.full(2, length - 1, dtype=np.int32), "total": np.full(1, length, dtype=np.int32)}
    proto = model(text, {**weights, **tables, "last": (many * size, 2)}, domains=CONTRIB, **constants)
    if cache == "input":
        for name in ("pk", "pv"):
            proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, few, past, size]))
    return proto


@pytest.mark.parametrize(
    ("proto", "attention", "sizes"),
    [
        (_grouped(), "heads", [(2, 16)]),
        (_grouped(), "head-dim", [(2, 16)]),
        (_grouped(packed=True), "heads", [(2, 32)]),
        (_grouped(8, 2), "heads", [(2, 32)]),
        (_grouped(4, 1), "heads", [(4, 8)]),
        (_grouped(4, 1, packed=True), "heads", [(4, 8)]),
        (_grouped(4, 4), "heads", [(4, 8)]),
        (_grouped(extra=", softcap = 3.0, local_window_size = 4"), "heads", [(2, 16)]),
        (_grouped(size=16, extra=", do_rotary = 1"), "heads", [(2, 32)]),
        (_grouped(size=16, extra=", do_rotary = 1"), "head-dim", [(2, 32)]),
        (_grouped(size=16, packed=True, extra=", do_rotary = 1, rotary_interleaved = 1"), "heads", [(2, 64)]),
    ],
)
def test_grouped_queries(proto: ModelProto, attention: Attention, sizes: list[tuple[int, int]]) -> None:
    assert _sizes(proto, attention) == sizes
    assert check(analyze(proto, attention=attention)).effect > 1e-3


def test_queries_go_where_a_cache_holds_their_keys() -> None:
    proto = _grouped(8, 2, cache="input")
    assert _sizes(proto, "heads") == [(4, 16)]
    outcome = check(proto)
    assert outcome.effect > 1e-3
    attributes = {
        item.name: helper.get_attribute_value(item) for node in outcome.pruned.graph.node for item in node.attribute
    }
    assert (attributes["num_heads"], attributes["kv_num_heads"]) == (4, 2)


@pytest.mark.parametrize("shape", [(2, 7, 4, 3, 6), (2, 7, 4, 2, 6)])
def test_packed_forms_without_a_cpu_kernel_stay(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape[2:]))
    made, inputs = ("", "h5") if shape[3] == 3 else ("q = MatMul (x, wq)", "q, h5")
    text = f"""({INPUT}) => (float[2,7,2] y) {{
        h = MatMul (x, first)
        {made}
        h5 = Reshape (h, target)
        m = com.microsoft.MultiHeadAttention <num_heads = 4> ({inputs})
        y = MatMul (m, last)
    }}"""
    weights = {"first": (3, size), "wq": (3, 24), "last": (24, 2)}
    analysis = analyze(model(text, weights, domains=CONTRIB, target=list(shape)))
    (barrier,) = analysis.scope.space.barriers.values()
    assert (barrier.kind, barrier.node and barrier.node.label) == ("MultiHeadAttention", "m")
    assert analysis.groups == ()


@pytest.mark.parametrize("heads", [0, 4])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("attention", ["heads", "head-dim"])
def test_rotary_embeddings_turn_pairs(heads: int, interleaved: int, attention: Attention) -> None:
    text = f"""({INPUT}) => (float[2,7,2] y) {{
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        r = com.microsoft.RotaryEmbedding <interleaved = {interleaved}, num_heads = {heads}> (q, at, cos, sin)
        s = com.microsoft.RotaryEmbedding <interleaved = {interleaved}, num_heads = {heads}> (k, at, cos, sin)
        o = com.microsoft.MultiHeadAttention <num_heads = 4> (r, s, v)
        y = MatMul (o, last)
    }}"""
    weights = {"wq": (3, 24), "wk": (3, 24), "wv": (3, 24), "cos": (9, 3), "sin": (9, 3), "last": (24, 2)}
    proto = model(text, weights, domains=CONTRIB, at=np.arange(14).reshape(2, 7) % 7)
    assert _sizes(proto, attention) == ([(4, 6)] if attention == "heads" else [(3, 8), (6, 4)])
    assert check(analyze(proto, attention=attention)).effect > 1e-3


@pytest.mark.parametrize(
    ("per_column", "made", "attention"),
    [
        (False, "i, s, z = DynamicQuantizeLinear (h)", "heads"),
        (True, "i, s, z = DynamicQuantizeLinear (h)", "head-dim"),
        (False, "i = QuantizeLinear (h, s, z)", "heads"),
        (True, "i = QuantizeLinear (h, s, z)", "heads"),
    ],
)
def test_attention_of_integers_loses_heads(per_column: bool, made: str, attention: Attention) -> None:
    columns, random = 3 * 4 * 6, np.random.default_rng(0)
    text = f"""({INPUT}) => (float[2,7,2] y) {{
        h = MatMul (x, first)
        {made}
        m = com.microsoft.QAttention <num_heads = 4> (i, w, b, s, ws, , z, wz)
        y = MatMul (m, last)
    }}"""
    size = (columns,) if per_column else ()
    constants = {
        "w": random.integers(-50, 50, (16, columns)).astype(np.int8),
        "ws": (0.01 * (1 + random.random(size))).astype(np.float32),
        "wz": np.full(size, 3, dtype=np.int8),
        **({} if "Dynamic" in made else {"s": np.float32(0.1), "z": np.uint8(110)}),
    }
    weights = {"first": (3, 16), "b": (columns,), "last": (24, 2)}
    proto = model(text, weights, domains=CONTRIB, **constants)
    assert _sizes(proto, attention) == [(4, 18), (16, 1)]
    outcome = check(analyze(proto, attention=attention))
    assert outcome.effect > 1e-3
    verified = verify_pruned(outcome.analysis, load(outcome.pruned), outcome.keep)
    assert verified.status == "verified"
