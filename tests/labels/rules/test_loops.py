# SPDX-License-Identifier: Apache-2.0
"""`Loop` and `Scan`: layers inside are free, and count once per turn; for states see `test_loop_states`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from body_cases import FLOPS, HIDDEN, MLP, THREE, WEIGHTS, body_tests, loop
from onnx import helper
from oracle_check import analyze, halves
from rule_cases import Case, groups
from tiny_models import model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.errors import VerificationError
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.verification.verify import verify_pruned


def _scan(body: str, attributes: str = "num_scan_inputs = 1") -> str:
    return f"""(float[2,4] x, float[5,2,4] xs) => (float[2,4] y, float[5,2,4] ys) {{
        y, ys = Scan <{attributes}, body = step (float[2,4] s, float[2,4] e) => (float[2,4] t, float[2,4] o) {{
            {body}
        }}> (x, xs)
    }}"""


CASES = [
    Case(
        "loop-convolutions",
        model(
            """(float[1,3,6,6] x) => (float[n,1,3,6,6] y) {
                last, y = Loop (three, , x) <body = step (int64 i, bool go, float[1,3,6,6] s)
                    => (bool on, float[1,3,6,6] t, float[1,3,6,6] u)
                {
                    on = Identity (go)
                    h = Conv <pads = [1, 1, 1, 1]> (s, first)
                    g = Conv <pads = [1, 1, 1, 1], group = 8> (h, middle)
                    r = Sigmoid (g)
                    t = Conv (r, last_weight)
                    u = Identity (t)
                }>
            }""",
            {"first": (8, 3, 3, 3), "middle": (8, 1, 3, 3), "last_weight": (3, 8, 1, 1)},
            **THREE,
        ),
        {"h": (8, "first.0 out, middle.0 per_channel, last_weight.1 in")},
    ),
    Case(
        "loop-in-a-loop",
        model(
            loop(
                """t = Loop (three, , s) <body = inner (int64 j, bool go2, float[2,4] s2) => (bool on2, float[2,4] t2) {
                    on2 = Identity (go2)
                    a = MatMul (s2, up) b = Add (a, bias) c = Relu (b) d = MatMul (c, down) t2 = Tanh (d)
                }>"""
            ),
            WEIGHTS,
            **THREE,
        ),
        HIDDEN,
    ),
    Case("scan", model(_scan(MLP.format("e", "m") + " t = Add (m, s) o = Tanh (t)"), WEIGHTS), HIDDEN),
    Case(
        "scan-other-axes",
        model(
            _scan(
                MLP.format("e", "m") + " t = Add (m, s) o = Tanh (t)",
                "num_scan_inputs = 1, scan_input_axes = [-1], scan_output_axes = [1], scan_input_directions = [1]",
            )
            .replace("[5,2,4]", "[2,4,5]", 1)
            .replace("[5,2,4]", "[2,5,4]", 1),
            WEIGHTS,
        ),
        HIDDEN,
    ),
]

test_layers_inside_are_free, test_numbers, test_files, test_nothing_removed = body_tests(CASES)


def test_a_state_that_grows_freezes_what_follows_from_it() -> None:
    text = """(float[2,4] x) => (float[n,4] y) {
        y = Loop (three, , x) <body = step (int64 i, bool go, float[n,4] s) => (bool on, float[m,4] t) {
            on = Identity (go)
            a = MatMul (s, up) c = Relu (a) d = MatMul (c, down)
            k = MatMul (x, up2) l = Relu (k) e = MatMul (l, down2)
            t = Concat <axis = 0> (d, e)
        }>
    }"""
    weights = {"up": (4, 8), "down": (8, 4), "up2": (4, 6), "down2": (6, 4)}
    analysis = analyze(model(text, weights, **THREE))
    assert "s" not in analysis.shapes.dims
    assert groups(analysis) == {"k": (6, frozenset({"up2.1 out", "down2.0 in"}))}
    assert {item.node for item in analysis.uncounted} == {"a", "d"}
    keep = halves(analysis)
    found = verify_pruned(analysis, analysis.model.replaced(prune(analysis, keep)), keep)
    assert found.status == "verified"
    assert found.effect > 1e-3


def test_a_chain_of_growing_states_does_not_take_a_pass_each() -> None:
    """Every state copies the one before it, so that each pass could doubt one more."""
    count = 40
    names = [f"s{at}" for at in range(count)]
    takes = "".join(f", float[n{name},4] {name}" for name in names)
    gives = "".join(f", float[m{name},4] t{at}" for at, name in enumerate(names))
    steps = "t0 = Concat <axis = 0> (s0, x) " + " ".join(f"t{at} = Identity (s{at - 1})" for at in range(1, count))
    outputs = ", ".join(f"y{at}" for at in range(count))
    text = f"""(float[2,4] x) => (float[n,4] y39) {{
        {outputs} = Loop (three, {"," + ",".join("x" for _ in names)})
            <body = step (int64 i, bool go{takes}) => (bool on{gives}) {{ on = Identity (go) {steps} }}>
    }}"""
    analysis = analyze(model(text, {}, **THREE))
    assert not {f"s{at}" for at in range(count)} & analysis.shapes.dims.keys()


@pytest.mark.parametrize(
    ("given", "on", "turns"),
    [
        pytest.param("three, , x", "on = Identity (go)", 3, id="constant"),
        pytest.param("three, yes, x", "on = Identity (go)", 3, id="condition-that-is-true"),
        pytest.param("three, yes, x", "on = Identity (yes)", 3, id="true-from-outside"),
        pytest.param("many, , x", "on = Identity (go)", 1, id="any-number"),
        pytest.param(", yes, x", "on = Identity (go)", 1, id="no-limit"),
        pytest.param("three, , x", "n = ReduceSum <keepdims = 0> (t) on = Less (n, one)", 1, id="may-end-sooner"),
        pytest.param("three, no, x", "on = Identity (go)", 1, id="does-not-begin"),
    ],
)
def test_flops_count_once_per_turn_where_the_turns_are_known(given: str, on: str, turns: int) -> None:
    text = (
        loop(MLP.format("s", "t"), given)
        .replace("on = Identity (go)", "")
        .replace("t = MatMul (c, down)", f"t = MatMul (c, down) {on}")
    )
    proto = model(
        text,
        WEIGHTS,
        many=np.int64(2**62),
        yes=np.bool_(True),
        no=np.bool_(False),
        one=np.float32(1),
        **THREE,
    )
    analysis = analyze(proto)
    assert analysis.cost.flops(analysis.cost.sizes) == turns * FLOPS


def test_iterations_of_loops_in_loops_multiply() -> None:
    case = next(case for case in CASES if case.id == "loop-in-a-loop")
    analysis = analyze(case.model)
    assert analysis.cost.flops(analysis.cost.sizes) == 9 * FLOPS


def test_a_scan_takes_a_turn_for_each_slice() -> None:
    case = next(case for case in CASES if case.id == "scan-other-axes")
    analysis = analyze(case.model)
    assert analysis.cost.flops(analysis.cost.sizes) == 5 * FLOPS
    assert analysis.shapes.dims["ys"] == (2, 5, 4)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("count, , x", id="number-of-turns"),
        pytest.param("three, begins, x", id="condition"),
        pytest.param("count, begins, x", id="both"),
    ],
)
def test_a_loop_that_would_take_no_turn_is_made_to_take_one(given: str, tmp_path: Path) -> None:
    """The number of turns and the condition follow from the input, and are such that nothing would be compared."""
    text = loop(MLP.format("s", "t"), given).replace(
        "{",
        """{
        squares = Mul (x, x)
        total = ReduceSum <keepdims = 0> (squares)
        never = Neg (total)
        negative = Cast <to = 7> (never)
        count = Min (negative, nothing)
        begins = Less (total, never)""",
        1,
    )
    analysis = Analysis(load(model(text, WEIGHTS, nothing=np.int64(0), **THREE)))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
    found = api.verify(analysis, api.apply(analysis, plan), plan)
    assert found.status == "verified"
    assert found.effect > 1e-3


def test_a_loop_without_end_is_not_waited_for() -> None:
    text = loop(MLP.format("s", "t"), "many, , x")
    analysis = analyze(model(text, WEIGHTS, many=np.int64(2**62)))
    keep = halves(analysis)
    with pytest.raises(VerificationError, match="could not be verified"):
        verify_pruned(analysis, analysis.model.replaced(prune(analysis, keep)), keep, timeout=2.0)


def test_a_scan_of_the_first_version_freezes() -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["e", "w"], ["o"])],
        "step",
        [helper.make_tensor_value_info("e", 1, [4])],
        [helper.make_tensor_value_info("o", 1, [4])],
    )
    graph = helper.make_graph(
        [helper.make_node("Scan", ["", "x"], ["y"], body=body, num_scan_inputs=1)],
        "old",
        [helper.make_tensor_value_info("x", 1, [1, 5, 4])],
        [helper.make_tensor_value_info("y", 1, [1, 5, 4])],
        [helper.make_tensor("w", 1, [4, 4], np.zeros(16))],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3)
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [4, 4]))
    assert Analysis(load(proto)).flat.is_flat
