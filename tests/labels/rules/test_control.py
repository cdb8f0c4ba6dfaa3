# SPDX-License-Identifier: Apache-2.0
"""Bodies of `If`, `Loop` and `Scan`: layers inside are pruned like any others; for states see `test_loop_states`."""

from __future__ import annotations

import numpy as np
import pytest
from fast_oracle import run
from onnx import AttributeProto, ModelProto, helper
from oracle_check import analyze, check, halves
from rule_cases import Case, assert_groups, groups, reasons
from tiny_models import model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.errors import ModelFileError, VerificationError
from graphprune.model.bodies import flatten
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.verification.verify import verify_pruned

MLP = "a = MatMul ({0}, up) b = Add (a, bias) c = Relu (b) {1} = MatMul (c, down)"
"""A hidden layer of 8 channels between two values of width 4."""
WEIGHTS = {"up": (4, 8), "bias": (8,), "down": (8, 4)}
HIDDEN = {"a": (8, "up.1 out, bias.0 per_channel, down.0 in")}


def _loop(body: str, given: str = "three, , x", *, outputs: str = "y") -> str:
    """Return a graph with a loop that hands on a state `s`, which its body turns into `t`."""
    return f"""(float[2,4] x) => (float[2,4] {outputs}) {{
        y = Loop ({given}) <body = step (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t) {{
            on = Identity (go)
            {body}
        }}>
    }}"""


def _scan(body: str, attributes: str = "num_scan_inputs = 1") -> str:
    return f"""(float[2,4] x, float[5,2,4] xs) => (float[2,4] y, float[5,2,4] ys) {{
        y, ys = Scan <{attributes}, body = step (float[2,4] s, float[2,4] e) => (float[2,4] t, float[2,4] o) {{
            {body}
        }}> (x, xs)
    }}"""


def _with_weights_inside(proto: ModelProto, *names: str) -> ModelProto:
    """Move initializers of the graph into the body of its loop."""
    (body,) = (a.g for node in proto.graph.node for a in node.attribute if a.type == AttributeProto.GRAPH)
    for tensor in [tensor for tensor in proto.graph.initializer if tensor.name in names]:
        body.initializer.append(tensor)
        proto.graph.initializer.remove(tensor)
    return proto


THREE = {"three": np.int64(3)}
CASES = [
    Case("loop-captured-weights", model(_loop(MLP.format("s", "t")), WEIGHTS, **THREE), HIDDEN),
    Case(
        "loop-own-weights",
        _with_weights_inside(model(_loop(MLP.format("s", "t")), WEIGHTS, **THREE), "up", "bias", "down"),
        HIDDEN,
    ),
    Case(
        "loop-captured-activation",
        model(
            """(float[2,4] x) => (float[2,4] y) {
                h = MatMul (x, up)
                r = Relu (h)
                y = Loop (three, , x) <body = step (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t) {
                    on = Identity (go)
                    m = MatMul (r, down)
                    t = Add (m, s)
                }>
            }""",
            {"up": (4, 8), "down": (8, 4)},
            **THREE,
        ),
        {"h": (8, "up.1 out, down.0 in")},
    ),
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
            _loop(
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
    Case(
        "loop-in-a-branch",
        model(
            """(float[2,4] x) => (float[2,4] z) {
                total = ReduceSum <keepdims = 0> (x)
                none = Sub (total, total)
                large = Equal (none, zero)
                z = If (large) <
                    then_branch = yes () => (float[2,4] y) {
                        y = Loop (three, , x) <body = step (int64 i, bool go, float[2,4] s)
                            => (bool on, float[2,4] t) { on = Identity (go) BODY }>
                    },
                    else_branch = no () => (float[2,4] n) { n = Neg (x) }
                >
            }""".replace("BODY", MLP.format("s", "t")),
            WEIGHTS,
            zero=np.float32(0),
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
    Case(
        "same-names-in-two-bodies",
        model(
            """(float[2,4] x) => (float[2,4] y) {
                m = Loop (three, , x) <body = one (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t) {
                    on = Identity (go) a = MatMul (s, up) c = Relu (a) t = MatMul (c, down)
                }>
                n = Tanh (m)
                y = Loop (three, , n) <body = two (int64 i, bool go, float[2,4] s) => (bool on, float[2,4] t) {
                    on = Identity (go) a = MatMul (s, up2) c = Relu (a) t = MatMul (c, down2)
                }>
            }""",
            {"up": (4, 8), "down": (8, 4), "up2": (4, 6), "down2": (6, 4)},
            **THREE,
        ),
        {"a": (8, "up.1 out, down.0 in"), "a@2": (6, "up2.1 out, down2.0 in")},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layers_inside_a_body_are_free(case: Case) -> None:
    assert_groups(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pruned_bodies_equal_the_masked_ones(case: Case) -> None:
    assert check(case.model).effect > 1e-3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pruned_bodies_are_verified_and_faithful(case: Case, tmp_path) -> None:
    analysis = Analysis(load(case.model))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
    api.save(api.apply(analysis, plan), tmp_path / "pruned.onnx")
    assert api.verify(analysis, api.load(tmp_path / "pruned.onnx"), plan).status == "verified"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_removed_is_nothing_changed(case: Case) -> None:
    analysis = analyze(case.model)
    assert prune(analysis, np.ones(int(analysis.grouping.sizes.sum()), dtype=np.bool_)) == case.model


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


FLOPS = 2 * 2 * (4 * 8 + 8 * 4)
"""Of one turn."""


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
        _loop(MLP.format("s", "t"), given)
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
def test_a_loop_that_would_take_no_turn_is_made_to_take_one(given: str, tmp_path) -> None:
    """The number of turns and the condition follow from the input, and are such that nothing would be compared."""
    text = _loop(MLP.format("s", "t"), given).replace(
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


@pytest.mark.parametrize("turned", [False, True])
def test_a_branch_that_is_always_taken_decides_the_shape(turned: bool) -> None:
    text = """(float[2,1,4] x) => (float[2,4] y) {
        sizes = Shape (x)
        middle = Gather <axis = 0> (sizes, one)
        single = Equal (middle, one)
        m = If (single) <
            then_branch = yes () => (float[n,k] a) { a = Squeeze (x, one) },
            else_branch = no () => (float[n,m,k] b) { b = Identity (x) }
        >
        h = MatMul (m, up)
        r = Relu (h)
        y = MatMul (r, down)
    }"""
    proto = model(text, {"up": (4, 8), "down": (8, 4)}, one=[1])
    if turned:
        _turn_branches(proto)
    assert groups(analyze(proto)) == {"h": (8, frozenset({"up.1 out", "down.0 in"}))}
    assert check(proto).effect > 1e-3


def _turn_branches(proto: ModelProto) -> None:
    """Let the else branch come first among the attributes, as `onnx.helper` sorts them."""
    for node in (node for node in proto.graph.node if node.op_type == "If"):
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        del node.attribute[:]
        node.attribute.extend(attributes)


@pytest.mark.parametrize("turned", [False, True])
def test_branches_of_which_one_squeezes_keep_the_same_channels(turned: bool) -> None:
    """As exporters write `squeeze` of an unknown length: one branch is impossible, but its channels go, too."""
    text = """(float[2,4,1] x) => (float[2,4] y) {
        h = Conv (x, up)
        sizes = Shape (h)
        last = Gather <axis = 0> (sizes, two)
        single = Equal (last, one)
        m = If (single) <
            then_branch = yes () => (float[n,k] a) { a = Squeeze (h, two) },
            else_branch = no () => (float[n,m,k] b) { b = Identity (h) }
        >
        r = Relu (m)
        large = ReduceSum <keepdims = 0> (r)
        is_large = Less (large, limit)
        t = If (is_large) <
            then_branch = yes2 () => (float[n,k] c) { c1 = Tanh (r) c = Sin (c1) },
            else_branch = no2 () => (float[n,k] d) { d = Neg (r) }
        >
        y = MatMul (t, down)
    }"""
    proto = model(text, {"up": (8, 4, 1), "down": (8, 4)}, one=[1], two=[2], limit=np.float32(9))
    if turned:
        _turn_branches(proto)
    assert groups(analyze(proto)) == {"h": (8, frozenset({"up.0 out", "down.0 in"}))}
    assert check(proto).effect > 1e-3
    analysis = Analysis(load(proto))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
    assert api.verify(analysis, api.apply(analysis, plan), plan).status == "verified"


def test_a_loop_without_end_is_not_waited_for() -> None:
    text = _loop(MLP.format("s", "t"), "many, , x")
    analysis = analyze(model(text, WEIGHTS, many=np.int64(2**62)))
    keep = halves(analysis)
    with pytest.raises(VerificationError, match="could not be verified"):
        verify_pruned(analysis, analysis.model.replaced(prune(analysis, keep)), keep, timeout=2.0)


def test_a_body_that_gives_the_size_of_something_pruned_goes_on_giving_it() -> None:
    text = """(float[2,4] x) => (int64[2] sizes, float[2,4] y) {
        start = Shape (x)
        sizes, y = Loop (three, , start, x) <body = step (int64 i, bool go, int64[2] k, float[2,4] s)
            => (bool on, int64[2] size, float[2,4] t)
        {
            on = Identity (go) a = MatMul (s, up) c = Relu (a) size = Shape (c) t = MatMul (c, down)
        }>
    }"""
    found = check(model(text, {"up": (4, 8), "down": (8, 4)}, **THREE))
    assert [group.size for group in found.after.groups] == [4]
    assert found.effect > 1e-3
    assert _outputs(found.pruned)["sizes"].tolist() == [2, 8]


def test_a_weight_that_a_body_gives_stays_whole() -> None:
    text = _loop("w = Identity (up) a = MatMul (s, w) c = Relu (a) t = MatMul (c, down)", "three, , x, other")
    text = text.replace("float[2,4] s)", "float[2,4] s, float[4,8] k)").replace(
        "float[2,4] t)", "float[2,4] t, float[4,8] w)"
    )
    analysis = analyze(
        model(text.replace("y = Loop", "y, z = Loop"), {"up": (4, 8), "down": (8, 4), "other": (4, 8)}, **THREE)
    )
    assert groups(analysis) == {}


def test_a_body_that_does_not_fit_is_refused() -> None:
    proto = model(_loop("t = MatMul (x, up)"), {"up": (4, 4)}, **THREE)
    (body,) = (a.g for node in proto.graph.node for a in node.attribute if a.type == AttributeProto.GRAPH)
    body.input.pop()
    assert flatten(proto).is_flat
    with pytest.raises(ModelFileError, match=r"Loop, node name: y.* 2 inputs but 3 were provided"):
        Analysis(load(proto))


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


def _outputs(proto: ModelProto) -> dict[str, np.ndarray]:
    """Run a model on ones."""
    return run(proto, {"x": np.ones((2, 4), dtype=np.float32)})


BRANCHES = """(float[2,4] x) => (float[2,4] y) {
    total = ReduceSum <keepdims = 0> (x)
    large = Less (total, limit)
    first = MatMul (x, common)
    m = If (large) <
        then_branch = yes () => (float[n,k] a) { a1 = MatMul (first, one) a = Relu (a1) },
        else_branch = no () => (float[n,k] b) { b1 = MatMul (first, other) b = Add (b1, shift) }
    >
    y = MatMul (m, down)
}"""


@pytest.mark.parametrize("limit", [-1e3, 1e3])
def test_what_both_branches_make_keeps_the_same_channels_in_both(limit: float) -> None:
    weights = {"common": (4, 6), "one": (6, 8), "other": (6, 8), "shift": (8,), "down": (8, 4)}
    proto = model(BRANCHES, weights, limit=np.float32(limit))
    assert set(groups(analyze(proto)).values()) == {
        (8, frozenset({"one.1 out", "other.1 out", "shift.0 per_channel", "down.0 in"})),
        (6, frozenset({"common.1 out", "one.0 in", "other.0 in"})),
    }
    assert check(proto).effect > 1e-3


def test_declared_results_of_branches_follow() -> None:
    weights = {"common": (4, 6), "one": (6, 8), "other": (6, 8), "shift": (8,), "down": (8, 4)}
    proto = model(BRANCHES.replace("float[n,k]", "float[2,8]"), weights, limit=np.float32(0))
    pruned = check(proto).pruned
    bodies = [a.g for node in pruned.graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    sizes = [dim.dim_value for body in bodies for dim in body.output[0].type.tensor_type.shape.dim]
    assert sizes == [2, 4, 2, 4]


@pytest.mark.parametrize("field", ["type", "shape"])
def test_results_of_branches_need_not_be_declared(field: str) -> None:
    """Functions that are inlined leave their results without a type."""
    weights = {"common": (4, 6), "one": (6, 8), "other": (6, 8), "shift": (8,), "down": (8, 4)}
    proto = model(BRANCHES, weights, limit=np.float32(0))
    for body in (a.g for node in proto.graph.node for a in node.attribute if a.type == AttributeProto.GRAPH):
        for value in body.output:
            if field == "type":
                value.ClearField("type")
            else:
                value.type.tensor_type.ClearField("shape")
    analysis = Analysis(load(proto))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
    assert api.verify(analysis, api.apply(analysis, plan), plan).status == "verified"


def test_weights_in_a_branch_that_is_not_reached_stay_whole() -> None:
    """Nothing can be compared there; what only passes through such a branch may lose channels."""
    text = """(float[2,4,1] x) => (float[2,4] y) {
        h = Conv (x, up)
        sizes = Shape (h)
        last = Gather <axis = 0> (sizes, two)
        single = Equal (last, one)
        m = If (single) <
            then_branch = yes () => (float[n,k] a) { a = Squeeze (h, two) },
            else_branch = no () => (float[n,m,k] b) { d = Conv (h, there) e = Relu (d) b = Conv (e, back) }
        >
        r = Relu (m)
        y = MatMul (r, down)
    }"""
    weights = {"up": (8, 4, 1), "down": (8, 4), "there": (6, 8, 1), "back": (8, 6, 1)}
    analysis = analyze(model(text, weights, one=[1], two=[2]))
    assert groups(analysis) == {}
    assert ("control flow", "d") in reasons(analysis, "d", 1)
    assert ("control flow", "d") in reasons(analysis, "h", 1)


def test_a_branch_that_cannot_run_holds_what_it_reads_and_no_more() -> None:
    """Five channels are no four parts: onnxruntime runs such a file until it takes that branch."""
    text = """(float[1,3,8,8] x, bool cond) => (float[1,4,8,8] y) {
        a = Conv (x, first)
        y = If (cond) <
            then_branch = dead () => (float[1,4,8,8] y1) {
                p, q, u, v = Split <axis = 1, num_outputs = 4> (a)
                y1 = Conv (p, never)
            },
            else_branch = live () => (float[1,4,8,8] y2) {
                h = Conv (a, up)
                r = Relu (h)
                y2 = Conv (r, down)
            }
        >
    }"""
    weights = {"first": (5, 3, 1, 1), "never": (4, 2, 1, 1), "up": (8, 5, 1, 1), "down": (4, 8, 1, 1)}
    analysis = analyze(model(text, weights, opset=18))
    assert groups(analysis) == {"h": (8, frozenset({"up.0 out", "down.1 in"}))}
    assert ("unknown shape", "p") in reasons(analysis, "a", 1)
    keep = halves(analysis)
    verified = verify_pruned(analysis, load(prune(analysis, keep)), keep)
    assert verified.status == "verified"
