# SPDX-License-Identifier: Apache-2.0
"""Rules of recurrent layers: hidden units are channels, whatever their gates do."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from oracle_check import analyze, check, halves, run
from rule_cases import Case, Stays, rule_tests
from tiny_models import model

from graphprune import api
from graphprune.model.load import load
from graphprune.surgery.prune import prune

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _layer(
    kind: str,
    attributes: str = "",
    directions: int = 1,
    *,
    inputs: str = "",
    opset: int = 17,
    **shapes: tuple[int, ...],
) -> ModelProto:
    """Put a recurrent layer with 6 hidden units between two matrix products: y = last(layer(first x))."""
    hidden, gates = 6, GATES[kind]
    text = f"""(float[4,2,3] x) => (float[] y) {{
        h = MatMul (x, first)
        s, e = {kind} <hidden_size = {hidden}{attributes}> (h, w, r{inputs})
        t = Transpose <perm = [0, 2, 1, 3]> (s)
        f = Reshape (t, target)
        y = MatMul (f, last)
    }}"""
    weights = {
        "first": (3, 5),
        "w": (directions, gates * hidden, 5),
        "r": (directions, gates * hidden, hidden),
        "last": (directions * hidden, 2),
        **shapes,
    }
    return model(text, weights, opset=opset, target=[4, 2, directions * hidden])


def _units(*more: str) -> tuple[int, str]:
    return 6, ", ".join(["w.1 out, r.1 out, r.2 in, last.0 in", *more])


INPUT = (5, "first.1 out, w.2 in")
CASES = [
    Case("lstm", _layer("LSTM"), {"h": INPUT, "s": _units()}),
    Case(
        "lstm-both-directions",
        _layer("LSTM", ', direction = "bidirectional"', 2, inputs=", b", b=(2, 48)),
        {"h": INPUT, "s": _units("b.1 per_channel")},
    ),
    Case(
        "lstm-states-and-peepholes",
        _layer("LSTM", ", clip = 2.0", inputs=", b, , h0, c0, p", b=(1, 48), h0=(1, 2, 6), c0=(1, 2, 6), p=(1, 18)),
        {"h": INPUT, "s": _units("b.1 per_channel, h0.2 per_channel, c0.2 per_channel, p.1 per_channel")},
    ),
    Case(
        "lstm-other-activations",
        _layer("LSTM", ', activations = ["HardSigmoid", "Softplus", "Softsign"], input_forget = 1'),
        {"h": INPUT, "s": _units()},
    ),
    Case("gru", _layer("GRU", inputs=", b", b=(1, 36)), {"h": INPUT, "s": _units("b.1 per_channel")}),
    Case(
        "gru-reset-behind",
        _layer("GRU", ", linear_before_reset = 1", inputs=", b, , h0", b=(1, 36), h0=(1, 2, 6)),
        {"h": INPUT, "s": _units("b.1 per_channel, h0.2 per_channel")},
    ),
    Case(
        "gru-reverse-both",
        _layer("GRU", ', direction = "bidirectional"', 2, opset=13),
        {"h": INPUT, "s": _units()},
    ),
    Case("rnn", _layer("RNN", inputs=", b", b=(1, 12)), {"h": INPUT, "s": _units("b.1 per_channel")}),
    Case("rnn-relu", _layer("RNN", ', activations = ["Relu"], direction = "reverse"'), {"h": INPUT, "s": _units()}),
    *(
        Case(
            f"lstm-{opset}",
            _layer("LSTM", inputs=", b", b=(1, 48), opset=opset),
            {"h": INPUT, "s": _units("b.1 per_channel")},
        )
        for opset in (7, 14, 22)
    ),
]

STAYS = [
    Stays(
        "time",
        model(
            """(float[2,3,5] x) => (float[] y) {
                h = Conv (x, first)
                t = Transpose <perm = [1, 0, 2]> (h)
                y, e = RNN <hidden_size = 2> (t, w, r)
            }""",
            {"first": (8, 3, 1), "w": (1, 2, 5), "r": (1, 2, 2)},
        ),
        ("RNN", "y"),
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


def test_counts_both_products() -> None:
    analysis = analyze(_layer("LSTM", ', direction = "bidirectional"', 2))
    layer = next(layer for layer in analysis.layers if layer.op == "LSTM")
    assert layer.flops(analysis.cost.sizes) == 2 * 4 * 6 * (5 + 6) * 4 * 2 * 2


STATEFUL = """(float[4,N,3] x) => (float[] y) {{
    s = Shape <start = 1, end = 2> (x)
    dims = Concat <axis = 0> (one, s, six)
    state = ConstantOfShape <value = float[1] {{{fill}}}> (dims)
    q, h, c = LSTM <hidden_size = 6> (x, w, r, , , state, state)
    f = Squeeze (h, nought)
    y = MatMul (f, last)
}}"""


def _stateful(fill: float) -> ModelProto:
    weights = {"w": (1, 24, 3), "r": (1, 24, 6), "last": (6, 2)}
    return model(STATEFUL.format(fill=fill), weights, one=[1], six=[6], nought=[0])


@pytest.mark.parametrize("batch", [1, 20000])
def test_leaves_states_of_zeros_out_so_that_the_batch_stays_open(batch: int) -> None:
    analysis = analyze(_stateful(0.0), x=(4, batch, 3))
    pruned = prune(analysis, halves(analysis))
    assert [node.op_type for node in pruned.graph.node] == ["LSTM", "Squeeze", "MatMul"]
    assert list(pruned.graph.node[0].input) == ["x", "w", "r"]
    found = run(pruned, {"x": np.ones((4, 5, 3), dtype=np.float32)}, ["y"])
    assert found["y"].shape == (5, 2)
    if batch == 1:
        check(analysis)


def test_other_states_lose_units_and_follow_the_batch() -> None:
    outcome = check(analyze(_stateful(0.5), x=(4, 1, 3)))
    assert outcome.effect > 1e-3
    found = run(outcome.pruned, {"x": np.ones((4, 5, 3), dtype=np.float32)}, ["y"])
    assert found["y"].shape == (5, 2)


OPEN = """(float[4,N,3] x) => (float[] y) {{
    g = MatMul (x, first)
    s = Shape <start = 1, end = 2> (x)
    dims = Concat <axis = 0> (one, s, six)
    {state}
    q, h{more} = {kind} <hidden_size = 6> (g, w, r, , , {given})
    f = Squeeze (h, nought)
    v = MatMul (f, middle)
    y = MatMul (v, last)
}}"""
_ZEROS = "z = ConstantOfShape <value = float[1] {0.0}> (dims)"
STATES = {
    "learned and spread": ("state = Expand (learned, dims)", [5, 6, 4]),
    "learned and repeated": ("counts = Concat <axis = 0> (one, s, one)\n state = Tile (learned, counts)", [5, 6, 4]),
    "scaled behind": ("e = Expand (learned, dims)\n state = Mul (e, half)", [5, 6, 4]),
    "one number everywhere": ("state = Expand (half, dims)", [5, 6, 4]),
    "picked for each sample": (
        "i = ConstantOfShape <value = int64[1] {0}> (s)\n state = Gather <axis = 1> (learned, i)",
        [5, 6, 4],
    ),
    "from the samples": ("m = ReduceMean <axes = [0], keepdims = 1> (x)\n state = MatMul (m, begin)", [5, 6, 4]),
    "filled": ("state = ConstantOfShape <value = float[1] {0.5}> (dims)", [5, 6, 4]),
    "filled by the recurrent weights": (
        "k = Shape <start = 2, end = 3> (r)\n d = Concat <axis = 0> (one, s, k)\n"
        "state = ConstantOfShape <value = float[1] {0.5}> (d)",
        [5, 6, 4],
    ),
    "added to zeros": (f"{_ZEROS}\n state = Add (z, learned)", [5, 6, 4]),
}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("name", STATES)
def test_states_that_follow_an_open_batch_are_cut_or_hold_the_units_from_the_start(kind: str, name: str) -> None:
    state, sizes = STATES[name]
    more, given = (", c", "state, state") if kind == "LSTM" else ("", "state")
    weights = {"first": (3, 5), "w": (1, GATES[kind] * 6, 5), "r": (1, GATES[kind] * 6, 6), "last": (4, 2)}
    weights |= {"learned": (1, 1, 6), "begin": (3, 6), "middle": (6, 4)}
    text = OPEN.format(state=state, kind=kind, more=more, given=given)
    half = np.full((1, 1, 1), 0.5, dtype=np.float32)
    analysis = api.analyze(load(model(text, weights, one=[1], six=[6], nought=[0], half=half)))
    assert analysis.grouping.sizes.tolist() == sizes
    assert analysis.held == (frozenset() if sizes == [5, 6, 4] else {"q"})
    pruned = check(analysis).pruned
    for batch in (1, 3):
        found = run(pruned, {"x": np.ones((4, batch, 3), dtype=np.float32)}, ["y"])
        assert found["y"].shape == (batch, 2)


def test_other_states_lose_units_where_the_batch_is_fixed() -> None:
    proto = _stateful(0.5)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2
    analysis = analyze(proto)
    assert analysis.grouping.sizes.tolist() == [6]
    pruned = prune(analysis, halves(analysis))
    assert run(pruned, {"x": np.ones((4, 2, 3), dtype=np.float32)}, ["y"])["y"].shape == (2, 2)
