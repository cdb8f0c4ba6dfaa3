# SPDX-License-Identifier: Apache-2.0
"""Operands that are constants nearly everywhere, and are computed here; and samples that are channels.

What says how large a result is, is hidden behind a zero that nobody knows before the model runs.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import analyze, check
from rule_cases import Stays, groups, reasons, rule_tests
from tiny_models import chain, model

CONTRIB = ', "com.microsoft": 1'
NEVER = "top = ReduceMax <keepdims = 0> (x) more = Greater (top, huge) zero = Cast <to = 7> (more)"
FLOATING = NEVER.replace("to = 7", "to = 1")
HUGE = np.float32(1e30)


def _hidden(middle: str, kind: str, *, real: bool = False, opset: int = 17, **constants: object) -> Stays:
    """Put nodes between two convolutions that read `told`, which is `given` but not known to be."""
    text = f"{FLOATING if real else NEVER} told = Add (given, zero) {middle}"
    return Stays(kind, chain(text, opset=opset, huge=HUGE, **constants), (kind, "n"))


STAYS = [
    _hidden("n = Reshape (h, told) m = Identity (n)", "Reshape", given=[2, 8, 6, 6]),
    _hidden("n = Expand (h, told) m = Identity (n)", "Expand", given=[2, 8, 6, 6]),
    _hidden("n = Tile (h, told) m = Identity (n)", "Tile", given=[1, 1, 1, 1]),
    _hidden("n, o = Split <axis = 1> (h, told) m = Concat <axis = 1> (n, o)", "Split", given=[3, 5]),
    _hidden("n = Resize (h, , , told) m = Identity (n)", "Resize", given=[2, 8, 9, 9]),
    _hidden(
        "n = Resize (h, , told) m = Identity (n)", "Resize", real=True, given=np.asarray([1, 1, 2, 2], dtype=np.float32)
    ),
    _hidden(
        "f = Reshape (h, flat) n = Col2Im (f, told, block) m = Resize (n, , , wide)",
        "Col2Im",
        opset=18,
        flat=[2, 8, 36],
        given=[7, 7],
        block=[2, 2],
        wide=[2, 8, 7, 7],
    ),
]

_, _, test_freezes = rule_tests([], STAYS)


def test_scales_of_some_axes_leave_the_others_alone() -> None:
    text = f"{FLOATING} told = Add (given, zero) m = Resize <axes = [2, 3]> (h, , told)"
    proto = chain(text, opset=18, huge=HUGE, given=np.asarray([2, 2], dtype=np.float32))
    assert check(proto).effect > 1e-3
    assert [size for size, _ in groups(analyze(proto)).values()] == [8]


def test_what_a_rule_takes_for_numbers_keeps_its_channels() -> None:
    """Both values of `OneHot` may come out of a product, which then could lose one of them."""
    text = """(float[3] x, int64[4] i) => (float[4, 6] y) {
        h = MatMul (x, first)
        y = OneHot (i, six, h)
    }"""
    analysis = analyze(model(text, {"first": (3, 2)}, six=[6]))
    assert analysis.groups == ()
    assert ("OneHot", "y") in {
        (reason.kind, reason.node.label) for _, reason in analysis.resolution.freezes if reason.node is not None
    }


def _samples(middle: str, weights: dict[str, tuple[int, ...]], **constants: object) -> ModelProto:
    """Let a product make eight samples `h` of shape (8, 1, 24), and another read those of `m`."""
    text = f"""(float[2,24] x) => (float[2,24] y) {{
        flat = MatMul (first, x)
        h = Unsqueeze (flat, one)
        {middle}
        s = Squeeze (m, one)
        y = MatMul (last, s)
    }}"""
    return model(
        text, {"first": (8, 2), "last": (2, 8), **weights}, opset=23, domains=CONTRIB, one=np.asarray([1]), **constants
    )


ROTATION = "m = RotaryEmbedding <num_heads = 4> (h, cos, sin{})"
OWN_ROTATION = "m = com.microsoft.RotaryEmbedding <num_heads = 4> (h, at, cos, sin)"
GROUPED = """m, nk, nv = com.microsoft.GroupQueryAttention
            <num_heads = 3, kv_num_heads = 3> (h, h, h, pk, pv, lengths, total)"""
TABLE = {"cos": (9, 3), "sin": (9, 3)}
AT = np.arange(8).reshape(8, 1)


@pytest.mark.parametrize(
    "proto",
    [
        pytest.param(_samples(ROTATION.format(""), {"cos": (8, 1, 3), "sin": (8, 1, 3)}), id="tables-per-sample"),
        pytest.param(_samples(ROTATION.format(", at"), TABLE, at=AT), id="positions-per-sample"),
        pytest.param(_samples(OWN_ROTATION, TABLE, at=AT), id="own-positions-per-sample"),
        pytest.param(_samples(OWN_ROTATION, TABLE, at=np.asarray([3])), id="own-positions-of-all"),
        pytest.param(
            _samples(
                "m = com.microsoft.MultiHeadAttention <num_heads = 4> (h, h, h, , seen)",
                {},
                seen=np.ones((8, 1), dtype=np.int32),
            ),
            id="a-mask-per-sample",
        ),
        pytest.param(
            _samples(
                GROUPED,
                {"pk": (8, 3, 2, 8), "pv": (8, 3, 2, 8)},
                lengths=np.full(8, 2, dtype=np.int32),
                total=np.int32(3),
            ),
            id="lengths-per-sample",
        ),
        pytest.param(
            _samples(
                "q = com.microsoft.DynamicQuantizeMatMul (h, w, scale) m = Relu (q)",
                {},
                w=np.arange(-288, 288).reshape(24, 24).astype(np.int8),
                scale=np.asarray([0.01], dtype=np.float32),
            ),
            id="a-range-over-samples",
        ),
    ],
)
def test_samples_are_channels(proto: ModelProto) -> None:
    assert "flat" in groups(analyze(proto)) or [size for size, _ in groups(analyze(proto)).values()] == [8]
    assert check(proto).effect > 1e-3


@pytest.mark.parametrize(
    ("operator", "inputs", "text"),
    [
        ("Add", "float[n, 3] z", "p = MatMul (z, w) y = Add (p, h)"),
        ("Gemm", "float[n, 3] z", "p = MatMul (z, w) y = Gemm (h, v, p)"),
        ("MatMul", "float[n, 4, 5] z", "c = Unsqueeze (h, one) y = MatMul (c, z)"),
    ],
)
def test_an_axis_of_open_size_may_be_longer_than_one(operator: str, inputs: str, text: str) -> None:
    """Two rows of `h` meet one row of `z`; if there were two of these, none of `h` could be left out."""
    proto = model(
        f"(float[3, 4] x, {inputs}) => (float o) {{ h = MatMul (first, x) {text} o = ReduceSum <keepdims = 0> (y) }}",
        {"first": (2, 3), "w": (3, 4), "v": (4, 4)},
        one=[1],
    )
    assert (operator, "y") in reasons(analyze(proto), "h", 0)
