# SPDX-License-Identifier: Apache-2.0
"""Declared shapes are right or gone, so that a runtime that plans by them runs the file."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, helper
from oracle_check import analyze
from tiny_models import model

from graphprune import BudgetRequest, apply, solve
from graphprune.planning.make_plan import SolveOptions
from graphprune.surgery.declared_shapes import follow_sizes
from graphprune.surgery.prune import prune

HEADS, WIDTH = 4, 2
BLOCK = """
    q{n} = Conv ({x}, wq{n})
    r{n} = Reshape (q{n}, folded)
    s{n} = Softmax <axis = -1> (r{n})
    t{n} = Mul (s{n}, r{n})
    b{n} = Reshape (t{n}, back)
    o{n} = Conv (b{n}, wo{n})
"""


def heads_in_batch() -> ModelProto:
    """Two layers whose heads are folded into the batch axis; a symbolic product declares that."""
    text = f"(float[N,3,4,4] x) => (float[N,3,4,4] y) {{ {BLOCK.format(n=1, x='x')} {BLOCK.format(n=2, x='o1')}"
    width = HEADS * WIDTH
    shapes = {f"wq{n}": (width, 3, 1, 1) for n in (1, 2)} | {f"wo{n}": (3, width, 1, 1) for n in (1, 2)}
    proto = model(text + " y = Relu (o2) }", shapes, folded=[-1, WIDTH, 4, 4], back=[-1, width, 4, 4])
    declared = {f"{name}{n}": [f"{HEADS}*N", WIDTH, 4, 4] for name in "rst" for n in (1, 2)}
    declared |= {f"{name}{n}": ["N", width, 4, 4] for name in "qb" for n in (1, 2)}
    for name, dims in declared.items():
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    return proto


def dims_of(value: ValueInfoProto) -> list[str | int | None]:
    """Return what is declared of each axis."""
    dims = value.type.tensor_type.shape.dim
    return [getattr(dim, dim.WhichOneof("value")) if dim.WhichOneof("value") else None for dim in dims]


def test_a_file_with_heads_in_the_batch_runs_plainly_at_any_batch_size() -> None:
    analysis = analyze(heads_in_batch())
    heads = [
        start for start, group in zip(analysis.grouping.starts, analysis.groups, strict=False) if group.size == HEADS
    ]
    keep = np.ones(int(analysis.grouping.sizes.sum()), dtype=np.bool_)
    first, second = map(int, heads)
    keep[[first, first + 1, second]] = False  # the layers keep different numbers of heads
    pruned = prune(analysis, keep)
    session = ort.InferenceSession(pruned.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 3):
        (y,) = session.run(None, {"x": np.ones((batch, 3, 4, 4), np.float32)})
        assert y.shape == (batch, 3, 4, 4)
    declared = {value.name: dims_of(value) for value in pruned.graph.value_info}
    assert declared["r1"] == [None, WIDTH, 4, 4]
    assert declared["q1"] == ["N", 2 * WIDTH, 4, 4]
    assert declared["q2"] == ["N", 3 * WIDTH, 4, 4]


def test_fidelity_knows_what_is_taken_back() -> None:
    analysis = analyze(heads_in_batch())
    plan = solve(analysis, BudgetRequest("flops", 0.8), SolveOptions(solver="greedy", criterion="l1"))
    pruned = apply(analysis, plan)  # compares field by field
    assert any(None in dims_of(value) for value in pruned.proto.graph.value_info)


@pytest.mark.parametrize(
    ("declared", "before", "now", "expected"),
    [
        (["N", 8, 6], (1, 8, 6), (1, 4, 6), ["N", 4, 6]),
        (["8*N", "C"], (8, 5), (4, 5), [None, "C"]),
        (["8*N", "C"], (8, 5), (8, 5), ["8*N", "C"]),
        (["N", 8], (1, 8, 6), (1, 4, 6), None),
        (["N", 8], (1, 8), None, None),
        (["N", 8], None, None, ["N", 8]),
    ],
    ids=["named-size", "symbolic-product", "untouched", "another-rank", "not-computable", "unknown"],
)
def test_right_or_gone(
    declared: list[str | int],
    before: tuple[int, ...] | None,
    now: tuple[int, ...] | None,
    expected: list[str | int | None] | None,
) -> None:
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, declared)
    follow_sizes(value, before, now)
    assert value.type.tensor_type.HasField("shape") == (expected is not None)
    assert dims_of(value) == (expected or [])


LOOP = """(float[N,3,6,6] x) => (float[N,3,6,6] y) {
    y = Loop (three, , x) <body = turn (int64 i, bool go, float[N,3,6,6] s) => (bool on, float[N,3,6,6] t) {
        on = Identity (go)
        h = Conv (s, first)
        r = Relu (h)
        t = Conv (r, last)
    }>
}"""


def body_of(proto: ModelProto) -> GraphProto:
    (loop,) = (node for node in proto.graph.node if node.op_type == "Loop")
    return next(a.g for a in loop.attribute if a.type == AttributeProto.GRAPH)


def test_what_is_declared_in_bodies_follows() -> None:
    proto = model(LOOP, {"first": (8, 3, 1, 1), "last": (3, 8, 1, 1)}, three=np.asarray(3))
    body_of(proto).value_info.extend(
        [
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 8, 6, 6]),
            helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", "8*N", 6, 6]),
        ]
    )
    analysis = analyze(proto)
    assert [group.size for group in analysis.groups] == [8]
    pruned = prune(analysis, np.arange(8) < 3)
    assert [dims_of(value) for value in body_of(pruned).value_info] == [["N", 3, 6, 6], ["N", None, 6, 6]]
    session = ort.InferenceSession(pruned.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((2, 3, 6, 6), np.float32)})[0].shape == (2, 3, 6, 6)


@pytest.mark.parametrize(
    "false", [[2, 3, 6], [2, 5, 6, 6], [2, -3, 6, 6], ["N", 3, 6, 2**62], [2, 3, 6, 6, 1]], ids=str
)
def test_what_was_declared_falsely_is_gone_though_no_slice_of_it_goes(false: list[str | int]) -> None:
    """Onnxruntime runs such files with a warning; what is written does not repeat what is known to be false."""
    proto = model(
        "(float[2,3,6,6] x) => (float[2,3,6,6] y) { h = Conv (x, first)\n r = Relu (h)\n s = Conv (r, last)\n"
        " y = Relu (s) }",
        {"first": (8, 3, 1, 1), "last": (3, 8, 1, 1)},
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, false))
    proto.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [2, 8, 6, "W"]))
    analysis = analyze(proto)
    pruned = apply(analysis, solve(analysis, BudgetRequest("flops", 0.5)))  # compares field by field
    declared = {value.name: value for value in pruned.proto.graph.value_info}
    assert not declared["s"].type.tensor_type.HasField("shape")
    assert dims_of(declared["r"])[2:] == [6, "W"]
