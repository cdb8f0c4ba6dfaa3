# SPDX-License-Identifier: Apache-2.0
"""`MatMulNBits`: columns go one by one, inputs in whole blocks."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import analyze, check
from rule_cases import groups, reasons
from tiny_models import model

from graphprune.array_types import Array

BLOCK = 16


def _stored(columns: int, blocks: int, bits: int = 4) -> Array:
    random = np.random.default_rng(columns * blocks)
    return random.integers(0, 256, (columns, blocks, BLOCK * bits // 8)).astype(np.uint8)


def _product(
    *,
    inner: int = 64,
    columns: int = 24,
    bits: int = 4,
    zeros: Array | None = None,
    flat: bool = False,
    bias: bool = False,
    order: bool = False,
) -> ModelProto:
    """Put a packed product between two others, so that its inputs and its columns are free."""
    blocks = -(-inner // BLOCK)
    scales = np.random.default_rng(1).random((columns, blocks)).astype(np.float32) * 0.1 + 0.05
    given = ["h", "q", "s", "z" if zeros is not None else "", "o" if order else "", "b" if bias else ""]
    while not given[-1]:
        given.pop()
    text = f"""(float[2,5,3] x) => (float[2,5,2] y) {{
        h = MatMul (x, first)
        m = com.microsoft.MatMulNBits
            <K = {inner}, N = {columns}, bits = {bits}, block_size = {BLOCK}> ({", ".join(given)})
        y = MatMul (m, last)
    }}"""
    constants: dict[str, Array] = {"q": _stored(columns, blocks, bits), "s": scales.ravel() if flat else scales}
    if zeros is not None:
        constants["z"] = zeros
    if order:
        constants["o"] = (np.arange(inner) // BLOCK).astype(np.int32)
    weights = {"first": (3, inner), "last": (columns, 2), **({"b": (columns,)} if bias else {})}
    return model(text, weights, domains=', "com.microsoft": 1', **constants)


OUT = "q.0 out, s.0 per_channel, last.0 in"
RANDOM = np.random.default_rng(0)


def _expect(inputs: int | None, columns: str) -> dict[str, tuple[int, frozenset[str]]]:
    expected = {} if inputs is None else {"h": (inputs, frozenset({"first.1 out", "q.1 in", "s.1 per_channel"}))}
    return {**expected, "m": (24, frozenset(columns.split(", ")))}


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_and_columns_go(bits: int) -> None:
    outcome = check(_product(bits=bits))
    assert groups(outcome.analysis) == _expect(4, OUT)
    assert outcome.effect > 1e-3


def test_zero_points_of_real_numbers_follow() -> None:
    outcome = check(_product(zeros=RANDOM.random((24, 4)).astype(np.float32) * 15, bias=True))
    found = groups(outcome.analysis)
    assert found["h"][1] == frozenset({"first.1 out", "q.1 in", "s.1 per_channel", "z.1 per_channel"})
    assert found["m"] == (24, frozenset({*OUT.split(", "), "z.0 per_channel", "b.0 per_channel"}))
    assert outcome.effect > 1e-3


@pytest.mark.parametrize(("bits", "together"), [(2, 4), (4, 2), (8, 1)])
def test_blocks_go_together_whose_zero_points_share_a_byte(bits: int, together: int) -> None:
    zeros = RANDOM.integers(0, 256, (24, 8 // together)).astype(np.uint8)
    outcome = check(_product(inner=8 * BLOCK, bits=bits, zeros=zeros))
    found = groups(outcome.analysis)
    assert found["h"] == (8 // together, frozenset({"first.1 out", "q.1 in", "s.1 per_channel", "z.1 per_channel"}))
    assert found["m"] == (24, frozenset({*OUT.split(", "), "z.0 per_channel"}))
    assert outcome.effect > 1e-3


@pytest.mark.parametrize(
    "proto",
    [
        _product(zeros=RANDOM.integers(0, 256, (24, 2)).astype(np.uint8), inner=48),
        _product(zeros=RANDOM.integers(0, 256, (48,)).astype(np.uint8)),
        _product(flat=True),
        _product(inner=56),
    ],
    ids=["an odd number of blocks", "packed zero points in a row", "scales in a row", "a last block that is not full"],
)
def test_columns_alone_go_where_blocks_are_not_apart(proto: ModelProto) -> None:
    analysis = analyze(proto)
    assert set(groups(analysis)) == {"m"}
    assert ("MatMulNBits", "m") in reasons(analysis, "h", 2)
    assert check(analysis).effect > 1e-3


def test_inputs_in_another_order_stay() -> None:
    analysis = analyze(_product(order=True))
    assert groups(analysis) == {}
    assert ("MatMulNBits", "m") in reasons(analysis, "h", 2)


def test_packed_weights_are_read_and_counted_as_numbers() -> None:
    analysis = analyze(_product(inner=32, columns=24))
    stored = analysis.constants.array("q")
    expected = np.stack([stored & 15, stored >> 4], axis=-1).reshape(24, 2, BLOCK).astype(np.float32) - 8
    np.testing.assert_allclose(analysis.read("q"), expected * analysis.constants.array("s")[:, :, None])
    assert analysis.cost.params(analysis.cost.sizes) == 3 * 32 + 24 * 32 + 24 * 2 + 24 * 2


def test_packed_zero_points_are_those_of_the_blocks() -> None:
    proto = _product(zeros=RANDOM.integers(0, 256, (24, 2)).astype(np.uint8))
    analysis = analyze(proto)
    stored, zeros = analysis.constants.array("q"), analysis.constants.array("z")
    values = np.stack([stored & 15, stored >> 4], axis=-1).reshape(24, 4, BLOCK).astype(np.float32)
    middle = np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(24, 4, 1).astype(np.float32)
    np.testing.assert_allclose(analysis.read("q"), (values - middle) * analysis.constants.array("s")[:, :, None])


def _bytes(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).integers(-90, 90, shape).astype(np.int8)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_products_that_quantise_their_input(per_column: bool, bias: bool) -> None:
    size = (6,) if per_column else (1,)
    text = f"""(float[2,5,3] x) => (float[2,5,2] y) {{
        h = MatMul (x, first)
        m = com.microsoft.DynamicQuantizeMatMul (h, w, s, z{", b" * bias})
        y = MatMul (m, last)
    }}"""
    constants = {
        "w": _bytes(8, 6),
        "s": np.full(size, 0.02, dtype=np.float32) * (1 + np.arange(size[0], dtype=np.float32)),
        "z": np.zeros(size, dtype=np.int8),
    }
    weights = {"first": (3, 8), "last": (6, 2), **({"b": (6,)} if bias else {})}
    outcome = check(model(text, weights, domains=', "com.microsoft": 1', **constants))
    found = groups(outcome.analysis)
    assert found["h"] == (8, frozenset({"first.1 out", "w.0 in"}))
    made = {"w.1 out", "last.0 in"} | ({"b.0 per_channel"} if bias else set())
    assert found["m"] == (6, frozenset(made | ({"s.0 per_channel", "z.0 per_channel"} if per_column else set())))
    assert outcome.effect > 1e-3


def test_products_of_integers_that_give_real_numbers() -> None:
    text = """(float[2,5,3] x) => (float[2,5,2] y) {
        h = MatMul (x, first)
        q, qs, qz = DynamicQuantizeLinear (h)
        m = com.microsoft.MatMulIntegerToFloat (q, w, qs, s, qz, z, b)
        y = MatMul (m, last)
    }"""
    constants = {"w": _bytes(8, 6), "s": np.full(6, 0.02, dtype=np.float32), "z": np.zeros(6, dtype=np.int8)}
    weights = {"first": (3, 8), "last": (6, 2), "b": (6,)}
    outcome = check(model(text, weights, domains=', "com.microsoft": 1', **constants))
    assert {name: size for name, (size, _) in groups(outcome.analysis).items()} == {"h": 8, "m": 6}
    assert outcome.effect > 1e-3


@pytest.mark.parametrize(("axis", "opset", "free"), [(1, 13, True), (2, 13, False), (-1, 13, False), (1, 11, False)])
def test_a_softmax_of_integers_is_that_of_its_operator_set(axis: int, opset: int, free: bool) -> None:
    text = f"""(float[2,5,3] x) => (float[2,5,2] y) {{
        h = MatMul (x, first)
        q = QuantizeLinear (h, s, z)
        m = com.microsoft.QLinearSoftmax <axis = {axis}, opset = {opset}> (q, s, z, t, z)
        r = DequantizeLinear (m, t, z)
        y = MatMul (r, last)
    }}"""
    constants = {"s": np.float32(0.05), "z": np.uint8(128), "t": np.float32(1 / 128)}
    proto = model(text, {"first": (3, 8), "last": (8, 2)}, domains=', "com.microsoft": 1', **constants)
    assert list(groups(analyze(proto))) == (["h"] if free else [])
    if free:
        assert check(proto).effect > 1e-3
    else:
        assert ("QLinearSoftmax", "m") in reasons(analyze(proto), "h", 2)
