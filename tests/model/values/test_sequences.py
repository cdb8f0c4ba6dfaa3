# SPDX-License-Identifier: Apache-2.0
"""Loops that collect tensors in a sequence are written out, and compute what they did."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from fast_oracle import run
from onnx import ModelProto
from oracle_check import check
from rule_cases import groups
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.model.load import load
from graphprune.model.values.sequences import spell_out

BODY = """body = step (int64 i, bool go, seq(float[n,c]) s) => (bool on, seq(float[n,c]) t) {
    on = Identity (go)
    begin = Gather <axis = 0> (bounds, place)
    next = Add (place, one)
    end = Gather <axis = 0> (bounds, next)
    part = Slice (r, begin, end, one)
    t = SequenceInsert (s, part)
}"""
"""What TorchScript makes of ``tensor_split``: slices of `r` along axis 1, between consecutive bounds."""

NETWORK = """(float[2,6] x) => (float[2,3] y) {{
    h = MatMul (x, up)
    r = Relu (h)
    {count}
    empty = SequenceEmpty ()
    parts = Loop ({given}, empty) <{body}>
    {read}
    y = MatMul (m, down)
}}"""
READ = """first = SequenceAt (parts, zero)
    second = SequenceAt (parts, last)
    m = Concat <axis = 1> (second, first)"""
WEIGHTS = {"up": (6, 8), "down": (8, 3)}
COUNT = "shape = Shape (lengths) turns = Gather <axis = 0> (shape, zero)"
GIVEN = "turns, "
PLACE = "place = Unsqueeze (i, zero_axis)"


def _network(
    *, body: str = BODY, given: str = GIVEN, count: str = COUNT, read: str = READ, width: int = 8, **more: object
) -> ModelProto:
    constants = {
        "lengths": np.zeros(2, dtype=np.int64),
        "bounds": [0, 3, 8],
        "one": [1],
        "zero_axis": [0],
        "zero": np.int64(0),
        "last": np.int64(-1),
        **more,
    }
    text = NETWORK.format(body=body.replace("on = ", f"{PLACE} on = ", 1), given=given, count=count, read=read)
    return model(text, {**WEIGHTS, "down": (width, 3)}, **constants)


def _inputs() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)}


OTHER_READS = [
    pytest.param(READ, 8, id="elements"),
    pytest.param("m = ConcatFromSequence <axis = 1> (parts)", 8, id="joined"),
    pytest.param(
        "less = SequenceErase (parts, zero) m = SequenceAt (less, zero)",
        5,
        id="first-erased",
    ),
    pytest.param(
        "more = SequenceInsert (parts, r, zero) a = SequenceAt (more, zero) m = Relu (a)", 8, id="inserted-in-front"
    ),
]


@pytest.mark.parametrize(("read", "width"), OTHER_READS)
def test_what_is_written_out_computes_the_same(read: str, width: int) -> None:
    proto = _network(read=read, width=width)
    found = spell_out(proto)
    onnx.checker.check_model(found, full_check=True)
    assert not [node.op_type for node in found.graph.node if "Sequence" in node.op_type or node.op_type == "Loop"]
    expected, got = run(proto, _inputs()), run(found, _inputs())
    assert np.array_equal(expected["y"], got["y"])


def test_channels_pass_through_what_was_a_sequence() -> None:
    proto = _network()
    outcome = check(proto)
    members = frozenset({"up.1 out", "down.0 in"})
    assert groups(outcome.analysis) == {"h": (3, members), "h+": (5, members)}
    assert outcome.effect > 1e-3


def test_a_body_that_does_not_declare_its_turn_gets_it_in_the_form_of_the_limit() -> None:
    """So it is with what TorchScript writes, which onnxruntime refuses to run as a loop."""
    proto = _network(count=f"{COUNT} turn_list = Unsqueeze (turns, zero_axis)", given="turn_list, ")
    expected = run(proto, _inputs())
    (loop,) = (node for node in proto.graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    body.input[0].ClearField("type")
    for node in body.node:
        node.input[:] = ["i" if name == "place" else name for name in node.input]
    body.node.remove(next(node for node in body.node if "place" in node.output))
    assert np.array_equal(expected["y"], run(spell_out(proto), _inputs())["y"])


def test_a_sequence_that_is_an_output_stays() -> None:
    proto = _network()
    proto.graph.output.add(name="parts").type.sequence_type.elem_type.tensor_type.elem_type = 1
    found = spell_out(proto)
    expected, got = run(proto, _inputs()), run(found, _inputs())
    assert [np.array_equal(a, b) for a, b in zip(expected["parts"], got["parts"], strict=True)] == [True, True]


def test_initializers_of_the_body_and_names_in_use_stay_apart() -> None:
    proto = _network(
        body=BODY.replace(
            "part = Slice (r, begin, end, one)", "long = Slice (r, begin, end, one) part = Mul (long, factor)"
        )
    )
    (loop,) = (node for node in proto.graph.node if node.op_type == "Loop")
    loop.attribute[0].g.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "factor"))
    found = spell_out(proto)
    names = [name for node in found.graph.node for name in node.output]
    assert len(names) == len(set(names))
    assert np.array_equal(run(proto, _inputs())["y"], run(found, _inputs())["y"])


@pytest.mark.parametrize(
    "proto",
    [
        pytest.param(
            _network(count=f"{COUNT} big = Mul (turns, many)", given="big, ", many=np.int64(10**6)), id="many"
        ),
        pytest.param(
            _network(count="sizes = Shape (x) two = Gather <axis = 0> (sizes, zero)", given="two, "),
            id="depends-on-the-input",
        ),
        pytest.param(_network(given="turns, no", no=np.bool_(False)), id="does-not-begin"),
        pytest.param(_network(body=BODY.replace("on = Identity (go)", "on = Equal (i, one)")), id="may-end-sooner"),
    ],
)
def test_other_loops_stay_what_they_are(proto: ModelProto) -> None:
    assert spell_out(proto) is proto
    Analysis(load(proto))


def test_models_without_such_loops_are_not_copied() -> None:
    proto = model("(float[2,4] x) => (float[2,4] y) { y = Relu (x) }")
    assert spell_out(proto) is proto
