# SPDX-License-Identifier: Apache-2.0
"""What changes nothing goes: zero, unread, constant and equal channels, until nothing more is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fast_oracle import counted_flops, feeds, run, worst
from hypothesis import assume, given
from hypothesis import strategies as st
from inheritance_cases import changed, twins
from onnx import ModelProto, TensorProto, numpy_helper
from quantised_models import quantised
from random_models import Case, models
from random_properties import examples
from tiny_models import chain, model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.errors import PlanError, UsageError
from graphprune.model.load import load
from graphprune.plan.schema import Merge, Plan
from graphprune.planning.constraints.constraints import Constraints
from graphprune.rewrites.paths import atom_positions

OPTIONS = api.SolveOptions(lossless=True)


def solved(proto: ModelProto) -> tuple[Analysis, Plan, ModelProto]:
    """Solve, apply, and assert that outputs and predicted costs are right."""
    analysis = Analysis(load(proto))
    plan = api.solve(analysis, (), OPTIONS)
    pruned = api.apply(analysis, plan).proto
    inputs = feeds(analysis)
    expected, found = run(proto, inputs), run(pruned, inputs, intermediates=True)
    assert worst(expected, {name: found[name] for name in expected}) < 1e-5
    again = Analysis(load(pruned))
    assert plan.budget.after == again.cost.flops(again.cost.sizes) == counted_flops(pruned, {**found, **inputs})
    return analysis, plan, pruned


def kept(plan: Plan, group: int = 0) -> list[int]:
    return list(plan.groups[group].kept)


def test_a_network_of_random_weights_stays_whole() -> None:
    _, plan, _ = solved(chain("m = Relu (h)"))
    assert plan.is_identity
    assert plan.lossless


def test_zero_filters_go() -> None:
    _, plan, _ = solved(changed(chain("m = Relu (h)"), ("first", 3, 0.0), ("first", 5, 0.0)))
    assert kept(plan) == [0, 1, 2, 4, 6, 7]
    assert plan.groups[0].folded == ()


def test_channels_with_zero_columns_go() -> None:
    _, plan, _ = solved(changed(chain("m = Relu (h)"), ("last", (slice(None), 2), 0.0)))
    assert kept(plan) == [0, 1, 3, 4, 5, 6, 7]


def test_a_scale_of_zero_leaves_a_constant_that_becomes_a_bias() -> None:
    proto = chain(
        "n = BatchNormalization (h, s, b, c, var)\n m = Relu (n)", dict.fromkeys(("s", "b", "c", "var"), (8,))
    )
    proto = changed(proto, ("s", 1, 0.0), ("s", 4, 0.0), ("b", 1, 0.75), ("b", 4, -0.5))
    _, plan, pruned = solved(proto)
    assert kept(plan) == [0, 2, 3, 5, 6, 7]
    assert plan.groups[0].folded == (1,)  # channel 4 is dead behind the Relu
    last = next(node for node in pruned.graph.node if node.output[0] == "y")
    assert len(last.input) == 3


@pytest.mark.parametrize(("pads", "removed"), [("[0, 0, 0, 0]", True), ("[1, 1, 1, 1]", False)])
def test_a_constant_that_is_not_zero_is_folded_where_no_padding_is_seen(pads: str, removed: bool) -> None:
    proto = model(
        f"(float[1,3,6,6] x) => (float[a,b,c,d] y) {{ h = Conv (x, w, b)\n r = Relu (h)\n"
        f"y = Conv <pads = {pads}> (r, v) }}",
        {"w": (6, 3, 1, 1), "b": (6,), "v": (4, 6, 3, 3)},
    )
    proto = changed(proto, ("w", 2, 0.0), ("b", 2, 1.5))
    _, plan, _ = solved(proto)
    assert plan.groups[0].folded == ((2,) if removed else ())
    assert (2 not in plan.groups[0].kept) == removed
    _, plan, _ = solved(changed(proto, ("b", 2, -1.5)))  # zero behind the Relu, padded or not
    assert 2 not in plan.groups[0].kept


def test_a_relu_that_never_fires_is_found_by_its_range() -> None:
    proto = model(
        "(float[1,3,4,4] x) => (float[1,2,4,4] y) { h = Conv (x, w)\n r = Sigmoid (h)\n i = Conv (r, v, b)\n"
        "s = Relu (i)\n y = Conv (s, u) }",
        {"w": (6, 3, 1, 1), "v": (5, 6, 1, 1), "b": (5,), "u": (2, 5, 1, 1)},
    )
    weights = np.full((6, 1, 1), 0.5, dtype=np.float32)
    _, plan, _ = solved(changed(proto, ("v", 3, weights), ("v", 4, weights), ("b", slice(5), [5, 5, 5, -3, -2.5])))
    assert kept(plan, 1) == [0, 1, 2, 4]  # six values below 1 add up to less than 3


def test_a_division_by_zero_is_no_scale() -> None:
    divisors = np.ones((8, 1, 1), np.float32)
    divisors[2] = 0.0
    plan = api.solve(Analysis(load(chain("m = Div (h, divisors)", divisors=divisors))), (), OPTIONS)
    assert 2 in kept(plan)


def test_equal_channels_become_one() -> None:
    _, plan, _ = solved(twins(chain("m = HardSwish (h)"), 0, (1, 4, 6)))
    assert plan.groups[0].merged == (Merge(4, 1, 1.0), Merge(6, 1, 1.0))


@pytest.mark.parametrize("alike", [False, True])
def test_a_transposed_convolution_by_channels_must_treat_equal_channels_alike(alike: bool) -> None:
    """Its kernels lie along the axis by which it reads, and are none the less its own for every channel."""
    proto = model(
        "(float[1,3,5] x) => (float[1,2,5] y) { h = Conv (x, w)\n r = Relu (h)\n"
        "m = ConvTranspose <group = 4> (r, d)\n y = Conv (m, v) }",
        {"w": (4, 3, 1), "d": (4, 2, 1), "v": (2, 8, 1)},
    )
    filters = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    proto = changed(proto, ("w", 2, filters["w"][1]), *([("d", 2, filters["d"][1])] if alike else []))
    _, plan, _ = solved(proto)
    assert plan.groups[0].merged == ((Merge(2, 1, 1.0),) if alike else ())
    assert plan.is_identity is not alike


def test_removing_goes_on_until_nothing_more_is_found() -> None:
    """A channel that only a dead one reads goes; equal channels make those equal that read them by other columns."""
    proto = model(
        "(float[1,3,4,4] x) => (float[1,2,4,4] y) { h = Conv (x, w)\n r = Relu (h)\n i = Conv (r, v)\n s = Relu (i)\n"
        "y = Conv (s, u) }",
        {"w": (6, 3, 1, 1), "v": (5, 6, 1, 1), "u": (2, 5, 1, 1)},
    )
    proto = twins(proto, 0, (0, 1))
    column = np.zeros((5, 1, 1), dtype=np.float32)
    column[2] = 1.0
    proto = changed(proto, ("v", (slice(None), 4), column), ("u", (slice(None), 2), 0.0))  # 4 -> 2 -> nothing
    mirrored = np.array([1.0, 0.0, 2.0, 0.5, 0.0, 0.0], dtype=np.float32).reshape(6, 1, 1)
    proto = changed(proto, ("v", 0, mirrored), ("v", 1, mirrored[[1, 0, 2, 3, 4, 5]]))
    _, plan, _ = solved(proto)
    assert kept(plan, 0) == [0, 2, 3, 5]
    assert kept(plan, 1) == [0, 3, 4]
    assert plan.groups[1].merged == (Merge(1, 0, 1.0),)


def test_a_constant_made_by_a_constant_is_folded() -> None:
    proto = model(
        "(float[1,3,4,4] x) => (float[1,2] y) { h = Conv (x, w, b)\n r = Relu (h)\n i = Conv (r, v, c)\n s = Tanh (i)\n"
        "g = GlobalAveragePool (s)\n f = Flatten (g)\n t = MatMul (f, u)\n y = Add (t, d) }",
        {"w": (6, 3, 1, 1), "b": (6,), "v": (5, 6, 1, 1), "c": (5,), "u": (5, 2), "d": (2,)},
    )
    only = np.zeros((6, 1, 1), dtype=np.float32)
    only[3] = 0.7
    _, plan, pruned = solved(changed(proto, ("w", 3, 0.0), ("b", 3, 0.4), ("v", 1, only)))
    assert plan.groups[0].folded == (3,)
    assert plan.groups[1].folded == (1,)
    assert [node.op_type for node in pruned.graph.node][-2:] == ["MatMul", "Add"]


def test_a_constant_is_folded_into_a_scaled_gemm() -> None:
    proto = model(
        "(float[2,3] x) => (float[2,4] y) { h = Gemm (x, w, b)\n r = Relu (h)\n"
        "y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (r, v, c) }",
        {"w": (3, 6), "b": (6,), "v": (4, 6), "c": (1, 4)},
    )
    _, plan, _ = solved(changed(proto, ("w", (slice(None), 5), 0.0), ("b", 5, 3.0)))
    assert plan.groups[0].folded == (5,)


def test_every_group_keeps_a_channel() -> None:
    _, plan, _ = solved(changed(chain("m = Relu (h)"), ("first", (), 0.0)))
    assert len(kept(plan)) == 1


def test_a_residual_channel_must_be_zero_in_all_branches() -> None:
    proto = model(
        "(float[1,3,4,4] x) => (float[1,2,4,4] y) { a = Conv (x, w)\n b = Relu (a)\n c = Conv (b, v)\n d = Add (b, c)\n"
        "y = Conv (d, u) }",
        {"w": (6, 3, 1, 1), "v": (6, 6, 1, 1), "u": (2, 6, 1, 1)},
    )
    _, plan, _ = solved(changed(proto, ("w", 2, 0.0), ("w", 4, 0.0), ("v", 4, 0.0)))
    assert kept(plan) == [0, 1, 2, 3, 5]


def test_a_depthwise_convolution_passes_zero_on() -> None:
    proto = chain("r = Relu (h)\n m = Conv <group = 8, pads = [1, 1, 1, 1]> (r, d)", {"d": (8, 1, 3, 3)})
    _, plan, _ = solved(changed(proto, ("first", 2, 0.0), ("d", 6, 0.0)))
    assert kept(plan) == [0, 1, 3, 4, 5, 7]


def test_in_a_quantised_model_only_zeros_go() -> None:
    proto = quantised("QDQ")
    names = [f"{layer}{kind}_quantized" for layer in ("stem", "depth", "back") for kind in ("", "_bias")]
    _, plan, _ = solved(changed(proto, *((name, 3, 0) for name in names)))
    assert kept(plan) == [0, 1, 2, *range(4, 16)]
    _, plan, _ = solved(changed(proto, *((name, 3, 0) for name in (names[:1] + names[2:]))))  # a constant is left
    assert plan.is_identity
    assert solved(twins(proto, 0, (0, 1)))[1].is_identity


def test_a_network_without_groups_stays_whole() -> None:
    _, plan, _ = solved(model("(float[1,3,6,6] x) => (float[a,b,c,d] y) { y = Conv (x, w) }", {"w": (4, 3, 3, 3)}))
    assert plan.is_identity


def test_budgets_and_alignment_have_no_say() -> None:
    analysis = Analysis(load(chain("m = Relu (h)")))
    with pytest.raises(UsageError, match="has no budget"):
        api.solve(analysis, api.BudgetRequest("flops", 0.5), OPTIONS)
    with pytest.raises(UsageError, match="takes no --round-to"):
        api.solve(analysis, (), replace(OPTIONS, round_to=8))
    with pytest.raises(UsageError, match="nothing can be constrained"):
        api.solve(analysis, (), replace(OPTIONS, constraints=Constraints(max_prune=0.5)))
    with pytest.raises(UsageError, match="no budget is given"):
        api.solve(analysis, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept": (0, 1, 2, 4, 6)}, "atom 7 matters to what the model computes"),
        ({"folded": ()}, "group 'g000' atom 5 is constant, but not zero, and has to be folded"),
        ({"folded": (3, 5)}, "group 'g000' atom 3 is folded, but is zero or never read"),
        ({"merged": (Merge(7, 0, 1.0),), "kept": (0, 1, 2, 4, 6)}, "7 is merged into atom 0, which it does not equal"),
        ({"merged": (Merge(7, 0, 0.5),), "kept": (0, 1, 2, 4, 6)}, "by a scale of 0.5, which is not lossless"),
    ],
)  # fmt: skip
def test_a_plan_that_is_not_lossless_must_not_say_so(change: dict[str, Any], message: str) -> None:
    proto = model(
        "(float[1,3,6,6] x) => (float[a,b,c,d] y) { h = Conv (x, w, b)\n r = Relu (h)\n y = Conv (r, v) }",
        {"w": (8, 3, 1, 1), "b": (8,), "v": (4, 8, 1, 1)},
    )
    proto = changed(proto, ("w", 3, 0.0), ("w", 5, 0.0), ("b", 3, -1.0), ("b", 5, 1.0))
    analysis, plan, _ = solved(proto)
    assert kept(plan) == [0, 1, 2, 4, 6, 7]
    other = replace(plan, groups=(replace(plan.groups[0], **change),))
    with pytest.raises(PlanError, match=message):
        api.apply(analysis, other)


def test_the_outputs_are_compared_with_those_of_the_original_itself() -> None:
    proto = changed(chain("m = Relu (h)"), ("first", 3, 0.0))
    analysis, plan, pruned = solved(proto)
    found = api.verify(analysis, api.apply(analysis, plan), plan)
    assert (found.status, found.lossless) == ("verified", True)
    assert found.error <= found.tolerance == pytest.approx(1e-5)
    assert pruned.metadata_props


@examples(40)
@given(models(), st.integers(0, 2**16))
def test_damaged_random_networks_lose_channels_and_nothing_else(case: Case, seed: int) -> None:
    """Some weights are set to zero, some filters are copied: the outputs stay what they are."""
    random = np.random.default_rng(seed)
    analysis = Analysis(load(case.proto))
    assume(analysis.groups)
    proto = case.proto
    for number, group in enumerate(analysis.groups):
        if random.random() < 0.3:
            proto = twins(proto, number, tuple(sorted(random.permutation(group.size)[:2].tolist())))
        for member in group.members:
            places = atom_positions(member, group.size)
            if random.random() < 0.5 or places is None or member.initializer not in _floats(proto):
                continue
            if member.op in ("BatchNormalization", "Div", "Pow") and member.slot != 1:
                continue
            index = (slice(None),) * member.axis + (places[random.integers(group.size)],)
            proto = changed(proto, (member.initializer, index, 0.0))
    analysis = Analysis(load(proto))
    plan = api.solve(analysis, (), OPTIONS)
    pruned = api.apply(analysis, plan).proto
    inputs = feeds(analysis)
    expected, found = run(proto, inputs), run(pruned, inputs, intermediates=True)
    assert worst(expected, {name: found[name] for name in expected}) < 1e-4
    again = Analysis(load(pruned))
    assert plan.budget.after == again.cost.flops(again.cost.sizes)


def _floats(proto: ModelProto) -> set[str]:
    return {tensor.name for tensor in proto.graph.initializer if tensor.data_type == TensorProto.FLOAT}
