# SPDX-License-Identifier: Apache-2.0
"""Attention as decoders write it: shared keys and values, caches, rotary embeddings, norms of queries and keys.

Keys and values are repeated by `Expand` and `Reshape` over the queries that share them; positions come as an input, and
tables of cosines and sines are computed from them.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import analyze, check
from tiny_models import model

from graphprune.choices import Attention

BATCH, STEPS, PAST, WIDTH, QUERIES, SIZE = 2, 5, 3, 12, 4, 6


def _normed(name: str) -> str:
    return f"""{name}_sq = Mul ({name}_2, {name}_2)
        {name}_mean = ReduceMean <axes = [-1]> ({name}_sq)
        {name}_safe = Add ({name}_mean, tiny)
        {name}_root = Sqrt ({name}_safe)
        {name}_unit = Div ({name}_2, {name}_root)
        {name}_3 = Mul ({name}_unit, norm_{name})"""


ANGLES = """places_f = Cast <to = 1> (places)
    column = Unsqueeze (places_f, last)
    half = Mul (column, frequencies)
    angles = Concat <axis = -1> (half, half)
    cosines = Cos (angles)
    sines = Sin (angles)
    cos = Unsqueeze (cosines, one)
    sin = Unsqueeze (sines, one)"""


def _rotated(name: str) -> str:
    return f"""{name}_left, {name}_right = Split <axis = -1> ({name}_3, halves)
        {name}_minus = Neg ({name}_right)
        {name}_turned = Concat <axis = -1> ({name}_minus, {name}_left)
        {name}_cos = Mul ({name}_3, cos)
        {name}_sin = Mul ({name}_turned, sin)
        {name}_4 = Add ({name}_cos, {name}_sin)"""


def _repeated(name: str) -> str:
    return f"""{name}_apart = Unsqueeze ({name}_5, two)
        {name}_spread = Expand ({name}_apart, spread)
        {name}_6 = Reshape ({name}_spread, merged)"""


def _decoder(shared: int, *, cache: bool = False, rotary: bool = False, norm: bool = False) -> ModelProto:
    """Return a layer of attention in which so many query heads share one head of keys and values."""
    heads, seen = QUERIES // shared, STEPS + PAST * cache
    lines = ["h_0 = MatMul (x, into) h = Relu (h_0)", ANGLES if rotary else ""]
    for name, count in (("q", QUERIES), ("k", heads), ("v", heads)):
        turns, shares = rotary and name != "v", shared > 1 and name != "q"
        lines.append(f"{name}_0 = MatMul (h, w{name}) {name}_1 = Reshape ({name}_0, apart_{count})")
        lines.append(f"{name}_2 = Transpose <perm = [0, 2, 1, 3]> ({name}_1)")
        lines.append(_normed(name) if norm and name != "v" else f"{name}_3 = Identity ({name}_2)")
        lines.append(_rotated(name) if turns else f"{name}_4 = Identity ({name}_3)")
        joins = cache and name != "q"
        lines.append(
            f"{name}_5 = " + (f"Concat <axis = 2> (past_{name}, {name}_4)" if joins else f"Identity ({name}_4)")
        )
        lines.append(_repeated(name) if shares else f"{name}_6 = Identity ({name}_5)")
    lines.append(
        """keys = Transpose <perm = [0, 1, 3, 2]> (k_6) scores = MatMul (q_6, keys) p = Softmax <axis = 3> (scores)
        o_0 = MatMul (p, v_6) o_1 = Transpose <perm = [0, 2, 1, 3]> (o_0) o = Reshape (o_1, joined)
        y = MatMul (o, out)"""
    )
    inputs = f"float[{BATCH},{STEPS},3] x" + f", int64[{BATCH},{STEPS}] places" * rotary
    before, after = (f"float[{BATCH},{heads},{steps},{SIZE}]" for steps in (PAST, seen))
    inputs += f", {before} past_k, {before} past_v" * cache
    outputs = "float[] y" + f", {after} k_5, {after} v_5" * cache
    weights = {"into": (3, WIDTH), "wq": (WIDTH, QUERIES * SIZE), "out": (QUERIES * SIZE, 2)}
    weights |= {f"w{name}": (WIDTH, heads * SIZE) for name in "kv"}
    weights |= {f"norm_{name}": (SIZE,) for name in "qk"} if norm else {}
    return model(
        f"({inputs}) => ({outputs}) {{ {' '.join(lines)} }}",
        weights | ({"frequencies": (1, SIZE // 2)} if rotary else {}),
        **{f"apart_{count}": [BATCH, STEPS, count, SIZE] for count in {QUERIES, heads}},
        spread=[BATCH, heads, shared, seen, SIZE],
        merged=[BATCH, QUERIES, seen, SIZE],
        one=[1],
        two=[2],
        joined=[BATCH, STEPS, QUERIES * SIZE],
        halves=[SIZE // 2] * 2,
        last=[-1],
        tiny=np.float32(1e-3),
    )


INNER, PAIRS, SINGLE = [SIZE], [SIZE // 2], []
HEADS = {1: [QUERIES], 2: [2], 4: [QUERIES]}
"""What can go as whole heads by how many queries share keys: heads, the same query of each, single queries."""


@pytest.mark.parametrize("shared", [1, 2, 4])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("attention", ["heads", "head-dim"])
def test_heads_and_what_is_inside_them(shared: int, rotary: bool, norm: bool, attention: Attention) -> None:
    """Norms keep queries and keys whole inside heads, a rotation ties their channels in pairs; values are free."""
    analysis = analyze(_decoder(shared, rotary=rotary, norm=norm), attention=attention)
    inside = (SINGLE if norm else PAIRS if rotary else INNER) + INNER
    expected = HEADS[shared] if attention == "heads" else inside
    assert sorted(group.size for group in analysis.groups) == sorted([WIDTH, *expected])
    assert check(analysis).effect > 1e-3


@pytest.mark.parametrize("shared", [1, 2, 4])
@pytest.mark.parametrize(("rotary", "norm"), [(False, False), (True, True)])
@pytest.mark.parametrize("attention", ["heads", "head-dim"])
def test_a_cache_keeps_keys_and_values_but_not_the_queries_that_share_them(
    shared: int, rotary: bool, norm: bool, attention: Attention
) -> None:
    analysis = analyze(_decoder(shared, cache=True, rotary=rotary, norm=norm), attention=attention)
    assert sorted(group.size for group in analysis.groups) == sorted([WIDTH] + ([shared] if shared > 1 else []))
    assert check(analysis).effect > 1e-3
