# SPDX-License-Identifier: Apache-2.0
"""Counting: every stored tensor once, and as often as surgery will store it."""

from __future__ import annotations

import numpy as np
import pytest
from oracle_check import analyze, check
from tiny_models import chain, model

SHARED = chain("a = Add (h, k)\n c = Conv (a, middle)\n m = Add (c, k)", {"k": (8, 1, 1), "middle": (8, 8, 1, 1)})


def _params(proto: object, *widths: int) -> int:
    analysis = analyze(proto)  # type: ignore[arg-type]
    return analysis.cost.params(np.asarray(widths, dtype=np.int64) if widths else analysis.cost.sizes)


def test_parameters_are_the_elements_of_all_float_tensors() -> None:
    proto = chain("m = Conv (h, middle, b)", {"middle": (6, 8, 3, 3), "b": (6,)}, after=6)
    assert _params(proto) == 24 + 432 + 6 + 12
    assert _params(proto, 3, 2) == 9 + 2 * 3 * 9 + 2 + 4


def test_bytes_count_every_type() -> None:
    proto = chain("m = Slice (h, s, e, at)", s=[0], e=[8], at=[1])
    assert analyze(proto).cost.size(np.array([8])) == 4 * (24 + 16) + 3 * 8


def test_scalars_are_no_parameters() -> None:
    assert _params(chain("m = Mul (h, half)", half=np.float32(0.5))) == 40


def test_a_shared_constant_counts_once_per_way_of_reading_it() -> None:
    assert _params(SHARED, 8, 8) == 24 + 64 + 16 + 2 * 8
    assert _params(SHARED, 3, 6) == 9 + 18 + 12 + 3 + 6
    outcome = check(SHARED, np.arange(16) % 4 > 0)
    assert {m.masked for g in outcome.analysis.groups for m in g.members if m.initializer == "k"} == {False}


def test_a_constant_that_is_read_in_one_way_counts_once() -> None:
    proto = chain("a = Add (h, k)\n m = Mul (a, k)", {"k": (8, 1, 1)})
    assert _params(proto) == 24 + 16 + 8


def test_a_constant_that_somebody_reads_whole_counts_whole_besides() -> None:
    proto = model(
        """(float[2,3,6,6] x) => (float[] y, float[] z) {
            h = Conv (x, first)
            a = Add (h, k)
            y = Conv (a, last)
            z = Identity (k)
        }""",
        {"first": (8, 3, 1, 1), "k": (8, 1, 1), "last": (2, 8, 1, 1)},
    )
    assert _params(proto, 3) == 9 + 6 + 3 + 8
    assert check(proto).after.cost.params(np.array([4])) == 12 + 8 + 4 + 8


def test_a_folded_weight_counts_in_place_of_what_it_is_made_of() -> None:
    """Weight standardisation: the folded weight is stored, its ingredients go."""
    text = """mean = ReduceMean <axes = [1, 2, 3]> (raw)
        c = Sub (raw, mean)
        w = Mul (c, scale)
        m = Conv (h, w)"""
    proto = chain(text, {"raw": (8, 8, 1, 1), "scale": (8, 1, 1, 1)})
    outcome = check(proto)
    names = {t.name for t in outcome.pruned.graph.initializer}
    assert not {"raw", "scale"} & names
    assert _params(proto) == 24 + 64 + 16
    assert {m.initializer for m in outcome.analysis.groups[1].members} == {"w", "last"}


def test_a_weight_that_is_scaled_by_the_number_of_its_elements_is_one() -> None:
    """What exporters make of a deviation divides by a count that they read from the shape of the weight."""
    text = """rows = Reshape (raw, each) mean = ReduceMean <axes = [1]> (rows) c = Sub (rows, mean) q = Mul (c, c)
        v = ReduceMean <axes = [1]> (q) s = Shape (rows) n = Gather (s, i1) f = Cast <to = 1> (n) g = Sub (f, one)
        u = Mul (v, f) d = Div (u, g) r = Sqrt (d) full = Shape (raw)
        e = Reshape (r, tall) wide = Expand (e, full) w = Div (raw, wide)
        m = Conv (h, w)"""
    proto = chain(text, {"raw": (8, 8, 1, 1)}, each=[8, -1], tall=[-1, 1, 1, 1], i1=[1], one=np.float32(1))
    outcome = check(proto)
    assert outcome.effect > 1e-3
    assert {m.initializer for m in outcome.analysis.groups[0].members} == {"first", "w"}
    assert {m.initializer for m in outcome.analysis.groups[1].members} == {"w", "last"}


@pytest.mark.parametrize("op", ["Identity", "Cast", "Transpose"])
def test_a_weight_behind_layout_counts_as_stored(op: str) -> None:
    attributes = {"Cast": "<to = 1>", "Transpose": "<perm = [1, 0, 2, 3]>"}.get(op, "")
    proto = chain(f"w = {op} {attributes} (raw)\n m = Conv (h, w)", {"raw": (8, 8, 1, 1)})
    assert _params(proto) == 24 + 64 + 16
    assert _params(proto, 3, 5) == 9 + 15 + 10


def test_layers_add_up() -> None:
    analysis = analyze(
        model(
            """(float[2,3,6,6] x) => (float[] y) {
            h = Conv <pads = [1, 1, 1, 1]> (x, first)
            g = Conv <group = 8> (h, dw)
            p = GlobalAveragePool (g)
            f = Flatten (p)
            y = Gemm (f, w, b)
        }""",
            {"first": (8, 3, 3, 3), "dw": (8, 1, 3, 3), "w": (8, 5), "b": (5,)},
        )
    )
    widths = np.array([5])
    assert [layer.node for layer in analysis.layers] == ["h", "g", "y"]
    assert [layer.op for layer in analysis.layers] == ["Conv", "Conv", "Gemm"]
    assert [layer.flops(widths) for layer in analysis.layers] == [
        2 * 2 * 5 * 36 * 27,
        2 * 2 * 5 * 16 * 9,
        2 * 2 * 5 * 5,
    ]
    assert sum(layer.flops(widths) for layer in analysis.layers) == analysis.cost.flops(widths)
    assert sum(layer.params(widths) for layer in analysis.layers) == analysis.cost.params(widths)
    assert [layer.width.at(widths) for layer in analysis.layers] == [5, 5, 5]


def test_flops_are_those_of_the_given_input() -> None:
    text = "(float[N,3,H,W] x) => (float[N,2,H,W] y) { h = Conv (x, first)\n y = Conv (h, last) }"
    proto = model(text, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)})
    small, large = (analyze(proto, x=shape).cost.flops(np.array([8])) for shape in ((1, 3, 4, 4), (1, 3, 8, 8)))
    assert large == 4 * small == 4 * 2 * 16 * (24 + 16)
