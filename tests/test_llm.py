# SPDX-License-Identifier: Apache-2.0
"""Decoders of the Llama and Qwen kind, weights in a data file: what goes exactly, and with which sizes they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from decoders import SIZES, decoder
from onnx import TensorProto

import graphprune
from graphprune import AnalyzeOptions, BudgetRequest, SolveOptions

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
