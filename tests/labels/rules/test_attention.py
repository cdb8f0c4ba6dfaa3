# SPDX-License-Identifier: Apache-2.0
"""Rules of the `Attention` and `RotaryEmbedding` operators: whole heads, or a part of each."""

from __future__ import annotations

from math import sqrt

import pytest
from onnx import ModelProto, helper
from oracle_check import analyze, check
from tiny_models import model

from graphprune.labels.resolve import Attention

OPSET = 23


def _packed(
    heads: int = 4,
    shared: int = 1,
    *,
    size: int = 6,
    value: int = 5,
    extra: str = "",
    inputs: str = "",
    **more: tuple[int, ...],
) -> ModelProto:
    few = heads // shared
    text = f"""(float[2,7,3] x) => (float[] y) {{
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        o = Attention <q_num_heads = {heads}, kv_num_heads = {few}{extra}> (q, k, v{inputs})
        y = MatMul (o, wo)
    }}"""
    shapes = {"wq": (3, heads * size), "wk": (3, few * size), "wv": (3, few * value), "wo": (heads * value, 2)}
    return model(text, {**shapes, **more}, opset=OPSET)


def _unpacked(heads: int = 4, shared: int = 1) -> ModelProto:
    few = heads // shared
    text = """(float[2,1,7,3] x) => (float[] y) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        o = Attention (q, k, v)
        p = MatMul (o, wo)
        y = ReduceSum <keepdims = 0> (p, at1)
    }"""
    shapes = {"wq": (heads, 3, 6), "wk": (few, 3, 6), "wv": (few, 3, 5), "wo": (heads, 5, 2)}
    return model(text, shapes, opset=OPSET, at1=[1])


def _sizes(proto: ModelProto, attention: Attention = "heads") -> list[tuple[int, int]]:
    return sorted((group.size, group.channels) for group in analyze(proto, attention=attention).groups)


@pytest.mark.parametrize(
    ("proto", "attention", "sizes"),
    [
        (_packed(), "heads", [(4, 6)]),
        (_packed(), "head-dim", [(5, 4), (6, 4)]),
        (_packed(shared=2), "heads", [(2, 12)]),
        (_packed(shared=2), "head-dim", [(5, 2), (6, 4)]),
        (_packed(shared=4), "heads", [(4, 6)]),
        (_packed(extra=", is_causal = 1, softcap = 2.0"), "heads", [(4, 6)]),
        (_packed(inputs=", mask", mask=(7, 7)), "heads", [(4, 6)]),
        (_packed(inputs=", mask", mask=(1, 4, 7, 7)), "heads", [(4, 6)]),
        (_packed(inputs=", mask", mask=(4, 7, 7)), "head-dim", [(5, 4), (6, 4)]),
        (_unpacked(), "heads", [(4, 1), (5, 1), (6, 1)]),
        (_unpacked(shared=2), "heads", [(2, 2), (5, 1), (6, 1)]),
    ],
)
def test_attention(proto: ModelProto, attention: Attention, sizes: list[tuple[int, int]]) -> None:
    assert _sizes(proto, attention) == sizes
    assert check(analyze(proto, attention=attention)).effect > 1e-3


def test_spells_out_the_scale_of_whole_heads() -> None:
    pruned = check(analyze(_packed(), attention="head-dim")).pruned
    node = next(node for node in pruned.graph.node if node.op_type == "Attention")
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert attributes["scale"] == pytest.approx(1 / sqrt(6))
    assert (attributes["q_num_heads"], attributes["kv_num_heads"]) == (4, 4)


def test_has_fewer_heads() -> None:
    pruned = check(_packed(shared=2)).pruned
    node = next(node for node in pruned.graph.node if node.op_type == "Attention")
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert attributes == {"q_num_heads": 2, "kv_num_heads": 1}


def test_counts_two_products() -> None:
    analysis = analyze(_packed())
    layer = next(layer for layer in analysis.layers if layer.op == "Attention")
    assert layer.flops(analysis.cost.sizes) == 2 * 2 * 4 * 7 * 7 * (6 + 5)


def test_cached_keys_of_the_model_keep_their_heads() -> None:
    text = """(float[2,7,3] x, float[2,4,2,6] pk, float[2,4,2,5] pv) => (float[] y, float[] nk, float[] nv) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        o, nk, nv = Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v, , pk, pv)
        y = MatMul (o, wo)
    }"""
    shapes = {"wq": (3, 24), "wk": (3, 24), "wv": (3, 20), "wo": (20, 2)}
    assert not analyze(model(text, shapes, opset=OPSET)).groups


def _rotated(interleaved: int, *, packed: bool, turned: int = 0) -> ModelProto:
    attributes = f"interleaved = {interleaved}, rotary_embedding_dim = {turned}" + (", num_heads = 4" if packed else "")
    reshape = "" if packed else "a = Reshape (p, split) b = Transpose <perm = [0, 2, 1, 3]> (a)"
    back = "" if packed else "c = Transpose <perm = [0, 2, 1, 3]> (r) m = Reshape (c, merge)"
    text = f"""(float[2,7,3] x) => (float[] y) {{
        p = MatMul (x, first)
        {reshape}
        {"m" if packed else "r"} = RotaryEmbedding <{attributes}> ({"p" if packed else "b"}, cosine, sine)
        {back}
        y = MatMul (m, last)
    }}"""
    table = (2, 7, (turned or 6) // 2)
    shapes = {"first": (3, 24), "last": (24, 2), "cosine": table, "sine": table}
    return model(text, shapes, opset=OPSET, split=[2, 7, 4, 6], merge=[2, 7, 24])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotation(interleaved: int, packed: bool) -> None:
    analysis = analyze(_rotated(interleaved, packed=packed))
    assert [group.size for group in analysis.groups] in ([3], [4])
    assert check(analysis).effect > 1e-3


def test_rotation_of_a_part_keeps_the_size_of_heads() -> None:
    analysis = analyze(_rotated(0, packed=True, turned=4))
    assert [group.size for group in analysis.groups] == [4]
    assert check(analysis).effect > 1e-3
