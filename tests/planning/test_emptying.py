# SPDX-License-Identifier: Apache-2.0
"""Groups that go as a whole: what vanishes, what takes its place, what goes together, and what must not go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fast_oracle import compare, counted_flops, feeds
from hypothesis import assume, given
from hypothesis import strategies as st
from inheritance_cases import changed, plan_of
from onnx import ModelProto, numpy_helper
from outcome_cases import network, samples
from random_models import Case, models
from random_properties import examples
from tiny_models import model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.cost.counting import count_costs
from graphprune.cost.metrics import model_cost
from graphprune.data.arrays import from_arrays
from graphprune.data.signature import input_specs
from graphprune.errors import BudgetUnreachableError, PlanError, UnsupportedModelError, UsageError, VerificationError
from graphprune.model.load import load
from graphprune.model.write import file_bytes
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import Plan
from graphprune.planning.bundles import close, find_bundles
from graphprune.planning.emptying_search import Attempt, search
from graphprune.rewrites.reference import make_reference
from graphprune.verification.fidelity.check_shortened import check_shortened

BLOCK = """
(float[n,3,6,6] x) => (float[n,2] y) {
    a = Conv (x, stem)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, first)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1]> (d, second)
    f = Conv (e, third OFFSET)
    MIDDLE
    h = Add (g, b)
    i = GlobalAveragePool (h)
    j = Flatten (i)
    y = Gemm (j, head)
}
"""
SHAPES = {
    "stem": (6, 3, 1, 1),
    "first": (8, 6, 3, 3),
    "second": (4, 8, 3, 3),
    "third": (6, 4, 1, 1),
    "head": (6, 2),
}


def block(middle: str = "g = Identity (f)", offset: str = "", **weights: tuple[int, ...]) -> ModelProto:
    return model(BLOCK.replace("MIDDLE", middle).replace(" OFFSET", offset), {**SHAPES, **weights})


def emptied(analysis: Analysis, *numbers: int, keep: float = 1.0, seed: int = 0) -> Plan:
    """Return a plan without some groups, and with a share of the others."""
    random = np.random.default_rng(seed)
    kept = [
        ()
        if number in numbers
        else tuple(np.sort(random.permutation(group.size)[: max(1, round(keep * group.size))]).tolist())
        for number, group in enumerate(analysis.groups)
    ]
    plan = plan_of(analysis, kept, [()] * len(kept))
    costs = count_costs(analysis, [len(atoms) for atoms in kept], start=make_reference(analysis, plan).start)
    return replace(plan, budget=costs.on(plan.budget), layers=costs.layers)


def carried_out(analysis: Analysis, plan: Plan) -> ModelProto:
    """Apply a plan, compare with the masked original, and count."""
    pruned = api.apply(analysis, plan).proto
    keep = keep_mask(analysis, plan)
    tensors = compare(analysis, keep, pruned)
    again = Analysis(load(pruned), analysis.input_shapes)
    assert plan.budget.after == again.cost.flops(again.cost.sizes)
    assert plan.budget.after == counted_flops(pruned, {**tensors, **feeds(analysis)})
    widths = [len(group.kept) for group in plan.groups]
    predicted = make_reference(analysis, plan).start.cost.params(np.array(widths))
    assert predicted == again.cost.params(again.cost.sizes)
    return pruned


def operators(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


REST = ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


def test_an_addition_of_zeros_goes_with_its_branch() -> None:
    analysis = Analysis(load(block()))
    assert set(find_bundles(analysis).values()) == {frozenset({1, 2})}
    assert operators(carried_out(analysis, emptied(analysis, 1, 2))) == REST
    assert operators(carried_out(analysis, emptied(analysis, 1, 2, keep=0.5))) == REST


@pytest.mark.parametrize(
    ("middle", "offset", "weights"),
    [
        ("g = Identity (f)", ", bias", {"bias": (6,)}),
        ("g = Relu (f)", ", bias", {"bias": (6,)}),
        ("g = BatchNormalization (f, s, t, mean, var)", "", dict.fromkeys(("s", "t", "mean", "var"), (6,))),
        ("k = Mul (f, scale)\n g = Add (k, shift)", "", {"scale": (6, 1, 1), "shift": (1, 6, 1, 1)}),
    ],
)
def test_what_a_branch_adds_by_itself_stays_as_a_constant(
    middle: str, offset: str, weights: dict[str, tuple[int, ...]]
) -> None:
    analysis = Analysis(load(block(middle, offset, **weights)))
    for keep in (1.0, 0.5):
        pruned = carried_out(analysis, emptied(analysis, 1, 2, keep=keep))
        assert operators(pruned) == [*REST[:2], "Add", *REST[2:]]
        (constant,) = (tensor for tensor in pruned.graph.initializer if tensor.name.endswith(".emptied"))
        assert list(constant.dims) == [1, round(6 * keep), 1, 1]


def test_emptying_one_layer_of_a_branch_empties_all() -> None:
    analysis = Analysis(load(block()))
    assert close(analysis, {1})[0] == close(analysis, {2})[0] == frozenset({1, 2})
    both = emptied(analysis, 1, 2)
    second = replace(both.groups[2], kept=tuple(range(both.groups[2].size)))
    with pytest.raises(PlanError, match="'g001' can only be emptied together with 'g002'"):
        api.apply(analysis, replace(both, groups=(*both.groups[:2], second)))
    assert operators(carried_out(analysis, emptied(analysis, 2))) == REST  # what only feeds it goes unasked


def test_the_trunk_stays() -> None:
    analysis = Analysis(load(block()))
    assert 0 not in find_bundles(analysis)
    with pytest.raises(PlanError, match="'g000' cannot keep nothing: the output 'y' would no longer depend"):
        emptied(analysis, 0, 1, 2)


def test_a_gate_becomes_a_constant_factor() -> None:
    proto = model(
        """(float[1,3,6,6] x) => (float[1,2,6,6] y) {
            a = Conv (x, stem)  b = Relu (a)
            c = GlobalAveragePool (b)  d = Conv (c, down, p)  e = Relu (d)  f = Conv (e, up, q)  g = Sigmoid (f)
            h = Mul (b, g)
            y = Conv (h, last)
        }""",
        {"stem": (6, 3, 1, 1), "down": (4, 6, 1, 1), "p": (4,), "up": (6, 4, 1, 1), "q": (6,), "last": (2, 6, 1, 1)},
    )
    analysis = Analysis(load(proto))
    assert set(find_bundles(analysis).values()) == {frozenset({1})}
    assert operators(carried_out(analysis, emptied(analysis, 1, keep=0.5))) == ["Conv", "Relu", "Mul", "Conv"]


def test_a_concatenation_drops_an_operand_and_sizes_follow() -> None:
    proto = model(
        """(float[n,3,4,4] x) => (float[n,5] y) {
            a = Conv (x, stem)  b = Relu (a)  c = Conv (b, grow, p)  d = Relu (c)  e = Conv (d, more, q)
            f = Concat <axis = 1> (b, e)
            g = BatchNormalization (f, s, t, mean, var)
            h = Reshape (g, shape)
            y = Gemm (h, head)
        }""",
        {
            "stem": (6, 3, 1, 1),
            "grow": (8, 6, 1, 1),
            "p": (8,),
            "more": (4, 8, 1, 1),
            "q": (4,),
            **dict.fromkeys(("s", "t", "mean", "var"), (10,)),
            "head": (160, 5),
        },
        shape=[-1, 160],
    )
    analysis = Analysis(load(proto))
    grown, more = (next(n for n, g in enumerate(analysis.groups) if g.name == name) for name in ("c", "e"))
    assert find_bundles(analysis)[grown] == frozenset({grown, more})
    pruned = carried_out(analysis, emptied(analysis, grown, more, keep=0.5))
    assert "Concat" in operators(pruned)
    assert operators(pruned).count("Conv") == 1


def test_attention_can_go_with_all_heads() -> None:
    proto = model(
        """(float[2,5,12] x) => (float[2,5,3] y) {
            q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)
            q2 = Reshape (q, heads)  k2 = Reshape (k, heads)  v2 = Reshape (v, heads)
            q3 = Transpose <perm = [0, 2, 1, 3]> (q2)
            k3 = Transpose <perm = [0, 2, 3, 1]> (k2)
            v3 = Transpose <perm = [0, 2, 1, 3]> (v2)
            s = MatMul (q3, k3)  p = Softmax (s)  o = MatMul (p, v3)
            o2 = Transpose <perm = [0, 2, 1, 3]> (o)
            o3 = Reshape (o2, flat)
            z = MatMul (o3, wo)  z2 = Add (z, bo)
            r = Add (x, z2)
            y = MatMul (r, head)
        }""",
        {"wq": (12, 12), "wk": (12, 12), "wv": (12, 12), "wo": (12, 12), "bo": (12,), "head": (12, 3)},
        heads=[2, 5, 4, 3],
        flat=[2, 5, 12],
    )
    analysis = Analysis(load(proto))
    assert find_bundles(analysis)[0] == frozenset({0})
    assert operators(carried_out(analysis, emptied(analysis, 0))) == ["Add", "MatMul"]


def test_what_is_left_is_written_anew_and_must_fit_into_the_budget_as_that() -> None:
    """Without its emptied groups a model is smaller than the file that surgery makes of it, and never kept as it is."""
    proto = changed(block(), ("first", ..., 1e-3), ("second", ..., 1e-3), ("third", ..., 1e-3))
    analysis = Analysis(load(proto))
    start = make_reference(analysis, emptied(analysis, 1, 2)).start
    left = model_cost(start, "size")
    written = left.written(analysis.cost.sizes)
    assert left.before < written
    options = api.SolveOptions(criterion="l2", round_to=1, allow_empty=True)
    plan = api.solve(analysis, api.BudgetRequest("size", f"{written}B"), options)
    assert [len(group.kept) for group in plan.groups] == [6, 0, 0]
    assert file_bytes(api.apply(analysis, plan)) <= plan.budget.after == plan.budget.limit == written
    with pytest.raises(BudgetUnreachableError):
        api.solve(analysis, api.BudgetRequest("size", f"{left.before + 1}B"), options)


@pytest.mark.parametrize("solver", ["bisection", "uniform", "greedy", "global", "milp"])
def test_solvers_may_drop_what_they_must(solver: str) -> None:
    """The budget is below what the narrowest widths of all groups cost."""
    analysis = Analysis(load(block(offset=", bias", bias=(6,))))
    options = api.SolveOptions(solver=solver, criterion="l2", round_to=1, allow_empty=True)
    least = analysis.cost.flops(np.ones(3, dtype=np.int64))
    without = analysis.cost.flops(np.array([1, 0, 0]))
    budget = api.BudgetRequest("flops", (least + without) / 2 / analysis.cost.flops(analysis.cost.sizes))
    plan = api.solve(analysis, budget, options)
    assert [len(group.kept) > 0 for group in plan.groups] == [True, False, False]
    assert plan.budget.after <= plan.budget.limit
    assert plan.solver.options["emptied"] == ["g001", "g002"]
    carried_out(analysis, plan)
    wider = replace(options, allow_empty=False)
    with pytest.raises(Exception, match="cannot reach"):
        api.solve(analysis, budget, wider)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3, 0.15, 0.08])
def test_nothing_that_fits_is_left_empty(share: float) -> None:
    analysis = Analysis(load(block(offset=", bias", bias=(6,))))
    options = api.SolveOptions(criterion="l2", round_to=1, allow_empty=True)
    plan = api.solve(analysis, api.BudgetRequest("flops", share), options)
    widths = np.array([len(group.kept) for group in plan.groups])
    assert plan.budget.after <= plan.budget.limit
    if not widths[1]:
        assert analysis.cost.flops(np.maximum(widths, 1)) > plan.budget.limit
    for group in np.flatnonzero((widths > 0) & (widths < analysis.cost.sizes)):
        wider = widths.copy()
        wider[group] += 1
        assert analysis.cost.flops(wider) > plan.budget.limit


def test_emptying_excludes_what_says_otherwise() -> None:
    with pytest.raises(UsageError, match="groups cannot go as a whole"):
        api.SolveOptions(allow_empty=True, min_keep=2)
    with pytest.raises(UsageError, match="--allow-empty"):
        api.solve(Analysis(load(block())), (), api.SolveOptions(lossless=True, allow_empty=True))


def test_another_shortened_graph_is_found_out() -> None:
    analysis = Analysis(load(block(offset=", bias", bias=(6,))))
    plan = emptied(analysis, 1, 2)
    found = make_reference(analysis, plan)
    check_shortened(found, plan)
    whole = replace(plan, groups=tuple(replace(group, kept=tuple(range(group.size))) for group in plan.groups))
    with pytest.raises(VerificationError):
        check_shortened(found, whole)
    assert found.shortened is not None
    found.shortened.analysis.graph.proto.graph.node[0].name = "other"
    with pytest.raises(VerificationError, match="the node"):
        check_shortened(found, plan)


def test_the_search_ends_without_gain_and_fills_up() -> None:
    def attempt(emptied: frozenset[int]) -> Attempt[None] | None:
        return Attempt(emptied, None, None, 10.0 - abs(len(emptied) - 3), None)  # type: ignore[arg-type]

    candidates = [frozenset({number}) for number in range(12)]
    best = search(candidates, attempt, lambda _others, _now: False)
    assert best is not None
    assert best.emptied == frozenset({0, 1, 2})
    best = search(candidates, attempt, lambda others, _now: len(others) > 1)
    assert best is not None
    assert len(best.emptied) == 2
    assert search(candidates, lambda _emptied: None, lambda _others, _now: True) is None


@examples(40)
@given(models(), st.integers(0, 2**16))
def test_random_networks_without_whole_groups_equal_the_masked_original(case: Case, seed: int) -> None:
    random = np.random.default_rng(seed)
    analysis = Analysis(load(case.proto))
    bundles = list(dict.fromkeys(find_bundles(analysis).values()))
    assume(bundles)
    chosen = [bundles[at] for at in random.permutation(len(bundles))[: random.integers(1, 4)]]
    closed, effects = close(analysis, frozenset().union(*chosen))
    assume(not effects.why)
    try:
        plan = emptied(analysis, *closed, keep=0.6, seed=seed)
    except PlanError as error:
        assume("would be coupled" not in error.message)
        raise
    except UnsupportedModelError:
        assume(False)
        raise
    pruned = api.apply(analysis, plan).proto
    keep = keep_mask(analysis, plan)
    compare(analysis, keep, pruned)
    again = Analysis(load(pruned), analysis.input_shapes)
    assert plan.budget.after == again.cost.flops(again.cost.sizes)


def measured_plan(share: float, **options: object) -> tuple[Analysis, Plan]:
    """Return a plan of widths that were measured, of a network whose last branch says little."""
    proto = ModelProto()
    proto.CopyFrom(network())
    for tensor in proto.graph.initializer:
        if tensor.name == "fourth":
            tensor.CopyFrom(numpy_helper.from_array(0.02 * numpy_helper.to_array(tensor), tensor.name))
    analysis = Analysis(load(proto))
    wanted = api.SolveOptions("sensitivity", criterion="l2", round_to=1, allow_empty=True, **options)  # type: ignore[arg-type]
    return analysis, api.solve(analysis, api.BudgetRequest("flops", share), wanted, data=samples())


def test_a_branch_goes_where_it_is_measured_to_matter_least() -> None:
    analysis, plan = measured_plan(0.5)
    gone = {group.size for group, own in zip(analysis.groups, plan.groups, strict=True) if not own.kept}
    assert gone == {14}
    assert plan.solver.options["emptied"] == [group.id for group in plan.groups if not group.kept]
    assert plan.budget.after <= plan.budget.limit
    carried_out(analysis, plan)


def test_where_all_branches_matter_none_goes() -> None:
    analysis = Analysis(load(network()))
    options = api.SolveOptions("sensitivity", criterion="l2", round_to=1, allow_empty=True)
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.9), options, data=samples())
    assert all(group.kept for group in plan.groups) and plan.solver.options["emptied"] == []


@pytest.mark.parametrize("tight", [False, True])
def test_groups_that_go_together_go_together_when_they_are_measured(tight: bool) -> None:
    proto = changed(block(offset=", bias", bias=(6,)), ("third", ..., 1e-3))
    analysis = Analysis(load(proto))
    source = from_arrays("noise", input_specs(analysis.model), {"x": noise((96, 3, 6, 6))})
    stem = 1 if tight else 6  # either nothing fits with the branch, or the branch only with a narrower stem
    costs = [analysis.cost.flops(np.array(widths)) for widths in ([6, 8, 4], [stem, 1, 1], [stem, 0, 0])]
    share = (costs[1] + costs[2]) / 2 / costs[0]
    options = api.SolveOptions("sensitivity", criterion="l2", round_to=1, allow_empty=True)
    plan = api.solve(analysis, api.BudgetRequest("flops", share), options, data=source)
    assert [len(group.kept) > 0 for group in plan.groups] == [True, False, False]
    carried_out(analysis, plan)


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
