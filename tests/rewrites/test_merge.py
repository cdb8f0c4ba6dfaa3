# SPDX-License-Identifier: Apache-2.0
"""Merging: equal channels become one without changing anything, and only where operators treat channels alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fast_oracle import compare, feeds, run, worst
from hypothesis import assume, given
from hypothesis import strategies as st
from inheritance_cases import plan_of, twins
from onnx import ModelProto, TensorProto, numpy_helper
from random_models import Case, models
from random_properties import examples
from tiny_models import chain, model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.errors import PlanError, VerificationError
from graphprune.model.load import load
from graphprune.plan.schema import Merge
from graphprune.rewrites.merge import choose_merges, column_edits
from graphprune.rewrites.paths import find_paths
from graphprune.rewrites.readers import Sites
from graphprune.rewrites.reference import make_reference
from graphprune.verification.fidelity.check_reweighed import check_reweighted

NORM = dict.fromkeys(("s", "b", "c", "var"), (8,))


def grades(proto: ModelProto) -> list[tuple[str, str]]:
    analysis = Analysis(load(proto))
    return [(path.grade, path.why) for path in find_paths(analysis, Sites(analysis))]


@pytest.mark.parametrize(
    ("middle", "weights", "grade"),
    [
        ("m = Relu (h)", {}, "scaled"),
        ("m = Identity (h)", {}, "scaled"),
        ("n = BatchNormalization (h, s, b, c, var)\n m = LeakyRelu (n)", NORM, "scaled"),
        ("n = Mul (h, s)\n o = Add (n, s)\n m = Relu (o)", {"s": (1, 8, 1, 1)}, "scaled"),
        ("m = PRelu (h, s)", {"s": (8, 1, 1)}, "scaled"),
        ("n = Relu (h)\n m = Add (n, h)", {}, "scaled"),
        ("m = MaxPool <kernel_shape = [2, 2]> (h)", {}, "scaled"),
        ("g = GlobalAveragePool (h)\n m = Mul (h, g)", {}, "equal"),
        ("m = Clip (h, zero, six)", {"zero": (), "six": ()}, "equal"),
        ("m = Sigmoid (h)", {}, "equal"),
        ("n = Relu (h)\n m = BatchNormalization (n, s, b, c, var)", NORM, "equal"),
        ("m = Conv <group = 8> (h, d)", {"d": (8, 1, 3, 3)}, "equal"),
        ("m = Conv <group = 4> (h, d)", {"d": (8, 2, 3, 3)}, "equal"),
        ("n = Reshape (h, to)\n o = Transpose <perm = [0, 2, 1, 3, 4]> (n)\n m = Reshape (o, back)", {}, "equal"),
        ("q = ReduceSum <keepdims = 1> (h, axes)\n m = Add (h, q)", {}, "none"),
        ("m = GroupNormalization <num_groups = 4> (h, s, b)", {"s": (8,), "b": (8,)}, "none"),
    ],
)  # fmt: skip
def test_what_stands_between_decides(middle: str, weights: dict[str, tuple[int, ...]], grade: str) -> None:
    constants: dict[str, Any] = {}
    after = 8
    if "Reshape" in middle:
        constants = {"to": [2, 4, 2, 6, 6], "back": [2, 8, 6, 6]}
    if "ReduceSum" in middle:
        constants = {"axes": [1]}
    opset = 21 if "GroupNormalization" in middle else 17
    found = grades(chain(middle, weights, after=after, opset=opset, **constants))
    assert found[0][0] == grade, found


@pytest.mark.parametrize("middle", ["m = Relu (h)", "m = Sigmoid (h)", "m = HardSwish (h)"])
def test_equal_channels_become_one_and_nothing_changes(middle: str) -> None:
    original = twins(chain(middle), 0, (0, 1, 3, 5))
    analysis = Analysis(load(original))
    plan = plan_of(analysis, [(0, 2, 4, 6, 7)], [tuple(Merge(atom, 0, 1.0) for atom in (1, 3, 5))])
    pruned = api.apply(analysis, plan)
    inputs = feeds(analysis)
    assert worst(run(original, inputs), run(pruned.proto, inputs)) < 1e-5
    assert api.verify(analysis, pruned, plan).status == "verified"


def test_a_multiple_is_merged_by_its_factor_through_a_normalisation() -> None:
    """The factor is that of what the normalisation makes of the filters, not that of the filters."""
    proto = chain("n = BatchNormalization (h, s, b, c, var)\n m = Relu (n)", NORM)
    arrays = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in proto.graph.initializer}
    arrays["first"][1] = arrays["first"][0] * 5  # channel 1 is three times channel 0 behind the normalisation
    arrays["var"][1], arrays["c"][1] = arrays["var"][0], arrays["c"][0] * 5
    arrays["s"][1], arrays["b"][1] = arrays["s"][0] * 3 / 5, arrays["b"][0] * 3
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    analysis = Analysis(load(proto))
    chosen = choose_merges(analysis, [np.array([0, 2, 3, 4, 5, 6, 7])])
    (merge,) = chosen.merges[0]
    assert (merge.removed, merge.exemplar) == (1, 0)
    assert merge.scale == pytest.approx(3, rel=1e-5)
    plan = plan_of(analysis, [(0, 2, 3, 4, 5, 6, 7)], chosen.merges)
    inputs = feeds(analysis)
    assert worst(run(proto, inputs), run(api.apply(analysis, plan).proto, inputs)) < 1e-5


def test_channels_of_a_flattened_image_are_merged_position_by_position() -> None:
    proto = model(
        "(float[2,3,4,4] x) => (float[2,5] y) { h = Conv (x, w)\n r = Relu (h)\n f = Flatten (r)\ny = Gemm (f, v, b) }",
        {"w": (6, 3, 1, 1), "v": (96, 5), "b": (5,)},
    )
    original = twins(proto, 0, (2, 4))
    analysis = Analysis(load(original))
    plan = plan_of(analysis, [(0, 1, 2, 3, 5)], [(Merge(4, 2, 1.0),)])
    inputs = feeds(analysis)
    assert worst(run(original, inputs), run(api.apply(analysis, plan).proto, inputs)) < 1e-5


def test_channels_that_are_not_alike_are_removed_plainly() -> None:
    analysis = Analysis(load(chain("m = Sigmoid (h)")))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.5), api.SolveOptions(inherit="merge"))
    assert plan.groups[0].merged == ()
    assert plan.solver.options["not_merged"] == {"Sigmoid does not scale with its input": 4}
    assert api.apply(analysis, plan).proto.graph.initializer


def test_an_opposite_channel_is_not_merged() -> None:
    proto = chain("m = Relu (h)", width=2)
    arrays = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in proto.graph.initializer}
    arrays["first"][1] = -arrays["first"][0]
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(arrays["first"], "first"))
    chosen = choose_merges(Analysis(load(proto)), [np.array([0])])
    assert chosen.merges == ((),)
    assert chosen.plain == {"no kept channel is similar": 1}


def test_a_weight_that_somebody_else_reads_is_not_changed() -> None:
    proto = model(
        "(float[1,3,4,4] x) => (float[1,2,4,4] y, float[2,6,1,1] z) { h = Conv (x, w)\n r = Relu (h)\n y = Conv (r, v)"
        "\n z = Identity (v) }",
        {"w": (6, 3, 1, 1), "v": (2, 6, 1, 1)},
    )
    analysis = Analysis(load(proto))
    paths = find_paths(analysis, Sites(analysis))
    assert all(path.grade == "none" for path in paths)


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ((Merge(1, 9, 1.0),), "atom 1 is merged into atom 9, which goes"),
        ((Merge(0, 2, 1.0),), "atom 0 is merged, but stays"),
        ((Merge(1, 0, -1.0),), "not positive"),
        ((Merge(1, 0, 1.0), Merge(1, 2, 1.0)), "not sorted"),
        ((Merge(3, 0, 1.0), Merge(1, 2, 1.0)), "not sorted"),
    ],
)
def test_merges_that_contradict_what_is_kept_are_refused(merges: tuple[Merge, ...], message: str) -> None:
    analysis = Analysis(load(chain("m = Relu (h)", width=10)))
    plan = plan_of(analysis, [(0, 2, 4)], [merges])
    with pytest.raises(PlanError, match=message):
        api.apply(analysis, plan)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        ("m = Sigmoid (h)", "not equal, and only equal channels can be merged there: Sigmoid does not scale"),
        (
            "m = ReduceSum <axes = [1], keepdims = 1> (h)",
            "its channels cannot be merged: ReduceSum sums over channels without weights of its own",
        ),
    ],
)
def test_merges_that_no_surgery_can_carry_out_are_refused(middle: str, message: str) -> None:
    single = "Reduce" in middle
    analysis = Analysis(load(chain(middle, after=1 if single else None, opset=11 if single else 17)))
    kept = tuple(range(0, analysis.groups[0].size, 2))
    rest = [tuple(range(group.size)) for group in analysis.groups[1:]]
    plan = plan_of(analysis, [kept, *rest], [(Merge(1, 0, 1.0),), *[()] * len(rest)])
    with pytest.raises(PlanError, match=message):
        api.apply(analysis, plan)


def test_channels_that_no_weight_makes_cannot_be_merged_as_nothing_tells_whether_they_are_equal() -> None:
    """Two channels that a Pad puts in front are a group of their own, which weights only read."""
    proto = model(
        "(float[1,2,3] x) => (float[1,2,3] y) { h = Conv (x, w)\n p = Pad (h, pads)\n y = Conv (p, v) }",
        {"w": (5, 2, 1), "v": (2, 7, 1)},
        pads=[0, 2, 0, 0, 0, 0],
    )
    analysis = Analysis(load(proto))
    padded = next(number for number, group in enumerate(analysis.groups) if group.size == 2)
    assert grades(proto)[padded] == ("none", "no weight makes its channels")
    kept = [(0,) if number == padded else tuple(range(group.size)) for number, group in enumerate(analysis.groups)]
    merges = [(Merge(1, 0, 1.0),) if number == padded else () for number in range(len(analysis.groups))]
    with pytest.raises(PlanError, match="its channels cannot be merged: no weight makes its channels"):
        api.apply(analysis, plan_of(analysis, kept, merges))


def test_another_edit_of_a_weight_is_found_out() -> None:
    analysis = Analysis(load(chain("m = Relu (h)")))
    plan = plan_of(analysis, [(0, 2, 3, 4, 5, 6, 7)], [(Merge(1, 0, 0.5),)])
    check_reweighted(analysis, make_reference(analysis, plan).reweighted, plan)
    other = plan_of(analysis, [(0, 2, 3, 4, 5, 6, 7)], [(Merge(1, 0, 0.501),)])
    with pytest.raises(VerificationError, match="'last' is not what the merges make of it"):
        check_reweighted(analysis, make_reference(analysis, other).reweighted, plan)
    none = plan_of(analysis, [(0, 2, 3, 4, 5, 6, 7)], [()])
    with pytest.raises(VerificationError, match="the tensor 'last'"):
        check_reweighted(analysis, make_reference(analysis, plan).reweighted, none)


def test_columns_are_added_in_the_type_of_the_weight() -> None:
    proto = chain("m = Relu (h)")
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    analysis = Analysis(load(proto))
    plan = plan_of(analysis, [(0, 2, 3, 4, 5, 6, 7)], [(Merge(1, 0, 0.25),)])
    before = analysis.read("last")
    after = column_edits(analysis, plan.groups)["last"](before)
    assert after.dtype == np.float16
    np.testing.assert_allclose(after[:, 0], before[:, 0] + 0.25 * before[:, 1], rtol=2e-3)
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    check_reweighted(analysis, make_reference(analysis, plan).reweighted, plan)


@examples(40)
@given(models(), st.integers(0, 2**16))
def test_twins_of_random_networks_are_merged_without_a_trace(case: Case, seed: int) -> None:
    """Whatever the graph is: where two channels may be merged and are equal, the outputs stay."""
    random = np.random.default_rng(seed)
    analysis = Analysis(load(case.proto))
    paths = find_paths(analysis, Sites(analysis))
    able = [number for number, path in enumerate(paths) if path.grade != "none"]
    assume(able)
    proto = case.proto
    chosen: dict[int, npt.NDArray[np.int64]] = {}
    for number in able:
        atoms = random.permutation(analysis.groups[number].size)[:3]
        copied = twins(proto, number, tuple(sorted(atoms.tolist())))
        if copied is not proto:
            proto, chosen[number] = copied, np.sort(atoms)
    assume(chosen)
    analysis = Analysis(load(proto))
    kept = [tuple(range(group.size)) for group in analysis.groups]
    merges: list[tuple[Merge, ...]] = [() for _ in analysis.groups]
    for number, atoms in chosen.items():
        first, *others = atoms.tolist()
        merges[number] = tuple(Merge(atom, first, 1.0) for atom in others)
        kept[number] = tuple(atom for atom in kept[number] if atom not in others)
    plan = plan_of(analysis, kept, merges)
    start = make_reference(analysis, plan).reweighted
    check_reweighted(analysis, start, plan)
    pruned = api.apply(analysis, plan).proto
    inputs = feeds(analysis)
    assert worst(run(proto, inputs), run(pruned, inputs)) < 2e-4
    keep = np.concatenate(
        [np.isin(np.arange(group.size), atoms) for group, atoms in zip(analysis.groups, kept, strict=True)]
    )
    compare(start, keep, pruned)


def test_the_reference_without_inheritance_is_the_original() -> None:
    analysis = Analysis(load(chain("m = Relu (h)")))
    plan = plan_of(analysis, [(0, 2, 3)], [()])
    assert make_reference(analysis, plan).reweighted is analysis
    assert replace(plan, lossless=False) == plan
