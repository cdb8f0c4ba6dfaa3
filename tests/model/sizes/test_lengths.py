# SPDX-License-Identifier: Apache-2.0
"""A decoder with a cache runs with made-up inputs: what it is told of lengths fits them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import check
from rule_cases import groups
from tiny_models import model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.model.graph import Graph
from graphprune.model.load import load
from graphprune.model.sizes.inputs import candidate_shapes, input_shapes
from graphprune.model.sizes.lengths import caches, fitting_values, sums
from graphprune.verification.sizes import second_sizes
from graphprune.verification.verify import verify_pruned

CONTRIB = ', "com.microsoft": 1'
DIRECT = "", "int32[b] ends, int32[1] total", "ends, total"
FROM_MASK = (
    """sums = ReduceSum <keepdims = 0> (mask, one)
        less = Sub (sums, single)
        ends = Cast <to = 6> (less)
        sizes = Shape <start = 1, end = 2> (mask)
        total = Cast <to = 6> (sizes)""",
    "int64[b,s] mask",
    "ends, total",
)
"""How model builders tell the lengths: as they are, or by a mask of the steps seen so far."""


def decoder(lengths: tuple[str, str, str] = DIRECT) -> ModelProto:
    """Return a block of a decoder as a model builder writes it: normalisations with residuals, cache, rotary tables."""
    made, inputs, names = lengths
    text = f"""(int64[b,t] ids, float[b,2,p,16] pk, float[b,2,p,16] pv, {inputs})
        => (float[b,t,11] y, float[b,2,n,16] nk, float[b,2,n,16] nv) {{
        {made}
        e = Gather (table, ids)
        a = SimplifiedLayerNormalization <axis = -1, epsilon = 0.000001, stash_type = 1> (e, s1)
        q = MatMul (a, wq)
        k = MatMul (a, wk)
        v = MatMul (a, wv)
        o, nk, nv = com.microsoft.GroupQueryAttention
            <num_heads = 8, kv_num_heads = 2, do_rotary = 1> (q, k, v, pk, pv, {names}, cos, sin)
        d = MatMul (o, wo)
        m, , , r = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.000001> (e, d, s2)
        g = MatMul (m, wg)
        u = MatMul (m, wu)
        i = Sigmoid (g)
        j = Mul (g, i)
        h = Mul (j, u)
        f = MatMul (h, wd)
        z, , , w = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.000001> (r, f, s3)
        y = MatMul (z, head)
    }}"""
    weights = {
        "table": (13, 24),
        "s1": (24,),
        "s2": (24,),
        "s3": (24,),
        "wq": (24, 128),
        "wk": (24, 32),
        "wv": (24, 32),
        "wo": (128, 24),
        "wg": (24, 20),
        "wu": (24, 20),
        "wd": (20, 24),
        "head": (24, 11),
        "cos": (64, 8),
        "sin": (64, 8),
    }
    single = {"one": [1], "single": np.ones(1, dtype=np.int64)} if made else {}
    return model(text, weights, domains=CONTRIB, **single)


def test_what_attention_is_told_fits_its_cache() -> None:
    graph = Graph(decoder())
    assert caches(graph) == {"pk": 2, "pv": 2}
    shapes = input_shapes(graph)
    assert (shapes["ids"], shapes["pk"]) == ((1, 16), (1, 2, 16, 16))
    analysis = Analysis(load(decoder()))
    assert fitting_values(graph, analysis.shapes) == {"ends": 31, "total": 32}


def test_a_mask_lets_all_steps_through() -> None:
    analysis = Analysis(load(decoder(FROM_MASK)), {"mask": (1, 32)})
    assert fitting_values(analysis.graph, analysis.shapes) == {"mask": 1}


@pytest.mark.parametrize("lengths", [DIRECT, FROM_MASK])
def test_a_decoder_with_a_cache_is_pruned_and_proven(lengths: tuple[str, str, str]) -> None:
    given = {"pk": (1, 2, 17, 16), "pv": (1, 2, 17, 16), **({"mask": (1, 33)} if lengths is FROM_MASK else {})}
    analysis = Analysis(load(decoder(lengths)), given)
    assert analysis.uncounted == ()
    found = groups(analysis)
    assert {name: size for name, (size, _) in found.items()} == {"q": 4, "g": 20}, "queries and the gated MLP"
    outcome = check(analysis)
    assert outcome.effect > 1e-3
    verified = verify_pruned(analysis, analysis.model.replaced(outcome.pruned), outcome.keep)
    assert verified.status == "verified"


def test_its_stream_goes_approximately() -> None:
    analysis = Analysis(load(decoder()), approximate=True)
    exact = {group.name: group.exact for group in analysis.groups}
    assert exact["e"] is False
    assert exact["g"] is True
    assert check(analysis).effect > 1e-3


def with_cache(mask: str, *, new: str = "t", again: str = "t") -> Graph:
    """Return an attention over a cache that is an ordinary input: keys are put behind it, a mask covers all steps."""
    inputs = f"int64[b,{new}] ids, {mask}, int64[b,{again}] places, float[b,2,p,4] past"
    text = f"""({inputs}) => (float[b,2,n,4] now, float[] y) {{
        e = Gather (table, ids)
        f = Reshape (e, split)
        k = Transpose <perm = [0, 2, 1, 3]> (f)
        now = Concat <axis = -2> (past, k)
        m = Cast <to = 1> (mask)
        s = ReduceSum <keepdims = 0> (m)
        t = Cast <to = 1> (places)
        u = ReduceSum <keepdims = 0> (t)
        y = Add (s, u)
    }}"""
    return Graph(model(text, {"table": (9, 8)}, split=[0, 0, 2, 4]))


@pytest.mark.parametrize("name", ["p + t", "t+p", "total", "s64", "n"])
def test_a_mask_covers_the_cache_and_what_is_new(name: str) -> None:
    graph = with_cache("int64[b,all] mask")
    graph.inputs["mask"].tensor_type.shape.dim[1].dim_param = name
    assert caches(graph) == {"past": 2}
    assert input_shapes(graph)["mask"] == (1, 32)
    assert input_shapes(graph, other=True)["mask"] == (2, 64)
    assert input_shapes(graph, {"past": (1, 2, 5, 4)})["mask"] == (1, 21)
    assert input_shapes(graph, {"mask": (1, 7)})["mask"] == (1, 7)
    assert [sizes["mask"][1] for sizes in second_sizes(graph, input_shapes(graph))] == [80, 64, 32, 48, 48]


def test_a_sum_may_have_a_number() -> None:
    graph = with_cache("int64[b,all] mask", new="1", again="1")
    graph.inputs["mask"].tensor_type.shape.dim[1].dim_param = "p + 1"
    assert sums(graph) == {("mask", 1): (("past", 2), 1)}
    assert input_shapes(graph)["mask"] == (1, 17)


def test_what_has_no_name_is_told_by_that_of_the_input() -> None:
    graph = with_cache("int64[b,?] mask", again="?")
    assert sums(graph) == {("mask", 1): (("past", 2), ("ids", 1))}
    assert sums(graph, guess=False) == {}


def test_sizes_come_again_without_a_guess() -> None:
    graph = with_cache("int64[b,all] mask")
    found = [shapes["mask"][1] for _, shapes in candidate_shapes(graph)]
    assert found[0] == 32
    assert 16 in found


def test_without_a_cache_nothing_is_summed() -> None:
    graph = Graph(
        model(
            "(int64[b,s] ids, float[b,all] mask) => (float[] y) { e = Gather (table, ids) y = Add (e, e) }",
            {"table": (9, 8)},
        )
    )
    assert caches(graph) == {}
    assert sums(graph) == {}


TWO_RATES = """(float[1,n] x, int64 rate) => (float[1,2] y) {
    fast = Equal (rate, sixteen)
    y = If (fast) <
        then_branch = yes () => (float[1,2] a) { h = MatMul (x, wide) r = Relu (h) a = MatMul (r, last) },
        else_branch = no () => (float[1,2] b) { g = MatMul (x, narrow) s = Relu (g) b = MatMul (s, other) }
    >
}"""


@pytest.mark.parametrize("turned", ["rate, sixteen", "sixteen, rate"])
def test_a_number_that_chooses_a_branch_leads_to_the_first_one(turned: str) -> None:
    """The other branch takes windows of another length, and does not run."""
    weights = {"wide": (16, 8), "last": (8, 2), "narrow": (8, 6), "other": (6, 2)}
    proto = model(TWO_RATES.replace("rate, sixteen", turned), weights, sixteen=np.int64(16000))
    analysis = Analysis(load(proto), {"x": (1, 16)})
    assert fitting_values(analysis.graph, analysis.shapes) == {"rate": 16000}
    assert (8, "h") in {(group.size, group.name) for group in analysis.groups}
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.7))
    assert api.verify(analysis, api.apply(analysis, plan), plan).status == "verified"
