# SPDX-License-Identifier: Apache-2.0
"""Decoders of the Llama and Qwen kind, weights in a data file: what goes exactly, and with which sizes they run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import SIZES, decoder
from onnx import ModelProto, TensorProto
from tiny_models import model

import graphprune
from graphprune import AnalyzeOptions, BudgetRequest, SolveOptions

ROOT = Path(__file__).parents[1]
KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Llama, as many keys as queries": {"groups": 4},
    "Qwen 2": {"bias": True},
    "Qwen 3": {"normed": True},
    "without a cache": {"cached": False},
    "float16": {"elem_type": TensorProto.FLOAT16},
}


@pytest.mark.parametrize("kind", KINDS)
def test_gated_layers_and_heads_go_exactly(kind: str, tmp_path: Path) -> None:
    sizes = {**SIZES, **KINDS[kind]}
    analysis = graphprune.analyze(decoder(tmp_path, **KINDS[kind]))
    found = {group.name: group.size for group in analysis.groups}
    each = sizes["heads"] // sizes["groups"]
    # What a cache hands over stays: then the same query heads of every head of keys go, elsewhere heads of keys.
    heads = each if sizes.get("cached", True) else sizes["groups"]
    wanted = {f"node_layers.{layer}.mlp.gate": sizes["inner"] for layer in range(2)}
    wanted |= {f"node_layers.{layer}.attn.q": heads for layer in range(2)} if heads > 1 else {}
    assert found == wanted
    assert analysis.uncounted == ()
    plan = graphprune.solve(analysis, BudgetRequest("flops", 0.7), SolveOptions(round_to=1))
    pruned = graphprune.apply(analysis, plan)
    outcome = graphprune.verify(analysis, pruned, plan)
    assert (outcome.status, outcome.sizes) == ("verified", 2), "with a second size of everything that is open, too"
    assert outcome.effect > 1e-3


@pytest.mark.parametrize("kind", ["Llama", "Qwen 3"])
def test_the_stream_goes_approximately(kind: str, tmp_path: Path) -> None:
    analysis = graphprune.analyze(decoder(tmp_path, **KINDS[kind]), AnalyzeOptions(approximate=True))
    streams = [group for group in analysis.groups if not group.exact]
    assert [group.size for group in streams] == [SIZES["hidden"]]
    plan = graphprune.solve(analysis, BudgetRequest("flops", 0.4), SolveOptions(round_to=1))
    pruned = graphprune.apply(analysis, plan)
    outcome = graphprune.verify(analysis, pruned, plan)
    assert outcome.status == "verified"
    assert any(not group.exact and len(group.kept) < group.size for group in plan.groups)


def test_the_tool_makes_and_measures_a_decoder(tmp_path: Path) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "llm_shape.py"), "--layers", "0"]
    made = subprocess.run([*tool, "--keep", str(tmp_path)], capture_output=True, text=True, check=True)
    assert made.stdout.startswith("0.26 billion parameters")
    assert (tmp_path / "large.data").stat().st_blocks < 100, "zeros take no room on the disk"


def packed_block(*, cache: bool) -> ModelProto:
    """Return a block as the builder of onnxruntime-genai writes it: all products in 4 bits, one for q, k and v."""
    wide, inner, many, few, size = 32, 64, 4, 2, 16

    def product(name: str, reads: str, rows: int, columns: int) -> str:
        constants[f"{name}_q"] = random.integers(0, 256, (columns, rows // 16, 8)).astype(np.uint8)
        constants[f"{name}_s"] = random.random((columns, rows // 16)).astype(np.float32) * 0.05 + 0.01
        attributes = f"K = {rows}, N = {columns}, bits = 4, block_size = 16"
        return f"{name} = com.microsoft.MatMulNBits <{attributes}> ({reads}, {name}_q, {name}_s)"

    constants: dict[str, Any] = {}
    random = np.random.default_rng(0)
    given = f"float[b,{few},p,{size}] pk, float[b,{few},p,{size}] pv, int32[b] ends, int32[1] total"
    made = f"float[b,{few},n,{size}] nk, float[b,{few},n,{size}] nv"
    inputs, outputs = (f", {given}", f", {made}") if cache else (", int32[b] ends, int32[1] total", "")
    text = f"""(int64[b,t] ids{inputs}) => (float[b,t,9] y{outputs}) {{
        e = Gather (table, ids)
        a = SimplifiedLayerNormalization <axis = -1, epsilon = 0.000001, stash_type = 1> (e, s1)
        {product("qkv", "a", wide, (many + 2 * few) * size)}
        o{", nk, nv" if cache else ", , "} = com.microsoft.GroupQueryAttention
            <num_heads = {many}, kv_num_heads = {few}, do_rotary = 1>
            (qkv, , {", pk, pv" if cache else ", , "}, ends, total, cos, sin)
        {product("d", "o", many * size, wide)}
        m, , , r = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.000001> (e, d, s2)
        {product("g", "m", wide, inner)}
        {product("u", "m", wide, inner)}
        i = Sigmoid (g)
        j = Mul (g, i)
        h = Mul (j, u)
        {product("f", "h", inner, wide)}
        z, , , w = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.000001> (r, f, s3)
        y = MatMul (z, head)
    }}"""
    weights: dict[str, tuple[int, ...]] = {"table": (13, wide), "head": (wide, 9), "cos": (64, 8), "sin": (64, 8)}
    weights |= dict.fromkeys(("s1", "s2", "s3"), (wide,))
    return model(text, weights, domains=', "com.microsoft": 1', **constants)


@pytest.mark.parametrize("cache", [False, True])
def test_packed_blocks_lose_heads_and_blocks(cache: bool) -> None:
    analysis = graphprune.analyze(graphprune.load(packed_block(cache=cache)))
    assert {group.name: group.size for group in analysis.groups} == {"qkv": 2, "g": 4}
    assert analysis.uncounted == ()
    plan = graphprune.solve(analysis, BudgetRequest("flops", 0.7), SolveOptions(round_to=1))
    assert {group.name: len(group.kept) for group in plan.groups if len(group.kept) < group.size}
    pruned = graphprune.apply(analysis, plan)
    assert graphprune.verify(analysis, pruned, plan).status == "verified"
    (attention,) = (node for node in pruned.proto.graph.node if node.op_type == "GroupQueryAttention")
    heads = {item.name: item.i for item in attention.attribute}
    assert heads["num_heads"] / heads["kv_num_heads"] == (1 if cache and heads["num_heads"] == 2 else 2)
