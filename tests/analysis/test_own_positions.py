# SPDX-License-Identifier: Apache-2.0
"""Own positions: outputs of conv groups go together by rank where nothing else couples them, and exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper
from oracle_check import check
from random_properties import examples
from tiny_models import chain, model

import graphprune
from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Floats, Mask
from graphprune.choices import Grouped
from graphprune.errors import PlanError, UsageError
from graphprune.model.load import load
from graphprune.plan import file as plan_file
from graphprune.surgery.prune import prune

GROUPS, EACH = 4, 6
BLOCK = """(float[2,3,6,6] x) => (float[] y) {
    h = Conv (x, first)
    c = Conv <group = 4> (h, middle)
    n = BatchNormalization (c, scale, shift, mean, var)
    m = Relu (n)
    y = Conv (m, last)
}"""
WEIGHTS = {
    "first": (32, 3, 1, 1),
    "middle": (24, 8, 1, 1),
    "last": (2, 24, 1, 1),
    **dict.fromkeys(("scale", "shift", "mean", "var"), (24,)),
}


def analysed(proto: ModelProto, grouped: Grouped = "auto") -> Analysis:
    return Analysis(load(proto), grouped=grouped)


def atoms_of(analysis: Analysis, name: str) -> list[list[int]]:
    """Return by conv group the atom of every channel of a value."""
    atoms = analysis.grouping.atom_of[analysis.scope.values[name][1].expand()]
    return atoms.reshape(GROUPS, -1).tolist()


def array(proto: ModelProto, name: str) -> Floats:
    return numpy_helper.to_array(next(each for each in proto.graph.initializer if each.name == name)).astype(float)


def norms(proto: ModelProto, name: str) -> Floats:
    """Return the norm of every filter of a convolution."""
    kernel = array(proto, name)
    return np.asarray(np.linalg.norm(kernel.reshape(len(kernel), -1), axis=1))


def test_equal_ranks_go_together() -> None:
    proto = model(BLOCK, WEIGHTS)
    analysis = analysed(proto)
    scores = norms(proto, "middle") * np.abs(array(proto, "scale")) / np.sqrt(array(proto, "var") + 1e-5)
    ranks = analysis.ranks["c"].reshape(GROUPS, EACH)
    assert ranks.tolist() == [np.argsort(np.argsort(-row)).tolist() for row in scores.reshape(GROUPS, EACH)]
    by_atom = {
        (atom, rank)
        for row, order in zip(atoms_of(analysis, "c"), ranks.tolist(), strict=True)
        for atom, rank in zip(row, order, strict=True)
    }
    assert len(by_atom) == EACH
    assert analysis.grouping.sizes.tolist() == analysed(proto, "slices").grouping.sizes.tolist() == [8, EACH]
    assert check(analysis).effect > 0.01


SUM = """(float[2,8,6,6] x) => (float[] y) {
    a = Conv <group = 4> (x, one)
    b = Conv <group = GROUPS> (x, two)
    m = Add (a, b)
    y = Conv (m, last)
}"""


def _sum(groups: int) -> ModelProto:
    text = SUM.replace("GROUPS", str(groups))
    return model(text, {"one": (24, 2, 1, 1), "two": (24, 8 // groups, 1, 1), "last": (2, 24, 1, 1)})


FREE = {
    "on the input": (
        "(float[2,8,6,6] x) => (float[] y) { c = Conv <group = 4> (x, w)\n y = Conv (c, last) }",
        {"w": (12, 2, 3, 3), "last": (2, 12, 1, 1)},
    ),
    "on what stays": (
        """(float[2,3,6,6] x) => (float[] h, float[] y) {
            h = Conv (x, first)
            c = Conv <group = 4> (h, w, bias)
            y = Conv (c, last)
        }""",
        {"first": (8, 3, 1, 1), "w": (12, 2, 3, 3), "bias": (12,), "last": (2, 12, 1, 1)},
    ),
    "a multiplier on the input": (
        "(float[2,4,6,6] x) => (float[] y) { c = Conv <group = 4> (x, w)\n y = Conv (c, last) }",
        {"w": (12, 1, 3, 3), "last": (2, 12, 1, 1)},
    ),
    "a dense sum": (
        """(float[2,8,6,6] x) => (float[] y) {
            c = Conv <group = 4> (x, w)
            d = Conv (x, dense)
            s = Add (c, d)
            y = Conv (s, last)
        }""",
        {"w": (12, 2, 1, 1), "dense": (12, 8, 1, 1), "last": (2, 12, 1, 1)},
    ),
    "squeeze and excitation, depthwise": (
        """(float[2,8,6,6] x) => (float[] y) {
            c = Conv <group = 4> (x, w)
            p = GlobalAveragePool (c)
            q = Conv (p, down)
            r = Conv (q, up)
            g = Sigmoid (r)
            e = Mul (c, g)
            d = Conv <group = 12> (e, depth)
            y = Conv (d, last)
        }""",
        {"w": (12, 2, 1, 1), "down": (4, 12, 1, 1), "up": (12, 4, 1, 1), "depth": (12, 1, 3, 3), "last": (2, 12, 1, 1)},
    ),
    "flattened": (
        """(float[2,8,2,2] x) => (float[] y) {
            c = Conv <group = 4> (x, w)
            f = Flatten (c)
            y = Gemm (f, last)
        }""",
        {"w": (12, 2, 1, 1), "last": (48, 2)},
    ),
    "inputs of a transposed convolution": (
        """(float[2,3,6,6] x) => (float[] y) {
            h = Conv (x, first)
            n = BatchNormalization (h, scale, shift, mean, var)
            r = Relu (n)
            c = ConvTranspose <group = 4> (r, w)
            y = Conv (c, last)
        }""",
        {
            "first": (12, 3, 1, 1),
            **dict.fromkeys(("scale", "shift", "mean", "var"), (12,)),
            "w": (12, 3, 2, 2),
            "last": (2, 12, 1, 1),
        },
    ),
    "halves apart": (
        """(float[2,8,6,6] x) => (float[] y) {
            c = Conv <group = 4> (x, w)
            s, t = Split <axis = 1> (c, halves)
            m = Mul (s, t)
            k = Concat <axis = 1> (s, t)
            y = Conv (k, last)
        }""",
        {"w": (16, 2, 1, 1), "last": (2, 16, 1, 1)},
    ),
}


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("seed", range(3))
def test_positions_are_free_and_pruning_is_exact(name: str, seed: int) -> None:
    analysis = analysed(model(*FREE[name], halves=[8, 8]))
    alike = analysis.by_position()
    assert list(analysis.ranks) == ["c"]
    assert not alike.ranks
    assert not np.array_equal(analysis.grouping.atom_of, alike.grouping.atom_of)
    assert analysis.grouping.sizes.tolist() == alike.grouping.sizes.tolist()
    assert check(analysis, seed=seed).effect > 0.01


COUPLED = {
    "a grouped convolution behind": (
        """(float[2,8,6,6] x) => (float[] y) {
            c = Conv <group = 4> (x, w)
            d = Conv <group = 4> (c, v)
            y = Conv (d, last)
        }""",
        {"w": (12, 2, 1, 1), "v": (12, 3, 1, 1), "last": (2, 12, 1, 1)},
        ["d"],
    ),
    "slices across groups": (
        """(float[2,8,6,6] x) => (float[] y) {
            c = Conv <group = 4> (x, w)
            s, t = Split <axis = 1> (c, parts)
            a = Conv (s, one)
            b = Conv (t, two)
            y = Add (a, b)
        }""",
        {"w": (16, 2, 1, 1), "one": (2, 6, 1, 1), "two": (2, 10, 1, 1)},
        [],
    ),
    "a transposed convolution on the input": (
        "(float[2,8,6,6] x) => (float[] y) { c = ConvTranspose <group = 4> (x, w)\n y = Conv (c, last) }",
        {"w": (8, 3, 2, 2), "last": (2, 12, 1, 1)},
        [],
    ),
    "its own inputs are added": (
        """(float[2,3,6,6] x) => (float[] y) {
            h = Conv (x, first)
            c = Conv <group = 2> (h, w)
            s = Add (c, h)
            y = Conv (s, last)
        }""",
        {"first": (8, 3, 1, 1), "w": (8, 4, 1, 1), "last": (2, 8, 1, 1)},
        [],
    ),
    "filters that the network makes": (
        """(float[1,8,6,6] x, float[12,3,1,1] kernel) => (float[] y) {
            w = Conv (kernel, first)
            c = Conv <group = 4> (x, w)
            y = Conv (c, last)
        }""",
        {"first": (2, 3, 1, 1), "last": (2, 12, 1, 1)},
        [],
    ),
}


@pytest.mark.parametrize("name", COUPLED)
def test_what_something_couples_by_position_stays_coupled_by_position(name: str) -> None:
    text, weights, ranked = COUPLED[name]
    analysis = Analysis(load(model(text, weights, halves=[8, 8], parts=[6, 10])), grouped="own")
    assert sorted(analysis.ranks) == ranked
    assert analysis.grouping.sizes.tolist() == analysis.by_position().grouping.sizes.tolist()
    if analysis.groups:
        check(analysis)


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_sums_share_one_order(groups: int) -> None:
    """Outputs that go together are equally many in each group of both convolutions."""
    analysis = analysed(_sum(groups))
    if groups == GROUPS:
        assert analysis.ranks["a"].tolist() == analysis.ranks["b"].tolist()
    assert sorted(analysis.ranks) == ["a", "b"]
    assert analysis.grouping.sizes.tolist() == analysis.by_position().grouping.sizes.tolist()
    assert not np.array_equal(analysis.grouping.atom_of, analysis.by_position().grouping.atom_of)
    assert check(analysis).effect > 0.01


CONCATENATED = """(float[2,6,6,6] x) => (float[] y) {
    h = Conv (x, first)
    c = Conv <group = 2> (h, grow)
    j = Concat <axis = 1> (h, c)
    b = Conv <group = 2> (j, middle)
    t = Reshape (b, apart)
    u = Transpose <perm = [0, 2, 1, 3, 4]> (t)
    v = Reshape (u, flat)
    d = Conv <group = 2> (v, back)
    s = Add (j, d)
    m = Relu (s)
    y = Conv (m, last)
}"""


def test_a_concatenation_in_front_of_a_grouped_convolution_leaves_fine_parts() -> None:
    """As in the first ShuffleNet: 4 channels beside 14 that two groups make, read and summed by two groups of 9."""
    weights = {"first": (4, 6, 1, 1), "grow": (14, 2, 1, 1), "middle": (6, 9, 1, 1), "back": (18, 3, 1, 1)}
    proto = model(CONCATENATED, {**weights, "last": (2, 18, 1, 1)}, apart=[2, 2, 3, 6, 6], flat=[2, 6, 6, 6])
    analysis = analysed(proto)
    alike = analysis.by_position()
    assert "c" in analysis.ranks
    ones, ones_alike = np.ones_like(analysis.grouping.sizes), np.ones_like(alike.grouping.sizes)
    assert analysis.grouping.sizes.sum() > alike.grouping.sizes.sum()
    assert analysis.cost.flops(ones) < 0.8 * alike.cost.flops(ones_alike)
    assert check(analysis).effect > 0.01
    one = np.zeros(int(analysis.grouping.sizes.sum()), dtype=np.bool_)
    one[analysis.grouping.starts[1:] - 1] = True
    assert check(analysis, one, seed=1).effect > 0.01


def test_a_bundle_that_is_emptied_leaves_the_ranks_of_the_others() -> None:
    weights = {"first": (4, 6, 1, 1), "grow": (14, 2, 1, 1), "middle": (6, 9, 1, 1), "back": (18, 3, 1, 1)}
    proto = model(CONCATENATED, {**weights, "last": (2, 18, 1, 1)}, apart=[2, 2, 3, 6, 6], flat=[2, 6, 6, 6])
    analysis = graphprune.analyze(load(proto))
    plan = graphprune.solve(analysis, flops=0.3, options=graphprune.SolveOptions(round_to=1, allow_empty=True))
    assert 0 in [len(group.kept) for group in plan.groups]
    assert graphprune.verify(analysis, graphprune.apply(analysis, plan), plan).status == "verified"


def test_only_where_it_is_asked_for_or_left_to_us() -> None:
    proto = model(BLOCK, WEIGHTS)
    assert list(analysed(proto, "own").ranks) == list(analysed(proto).ranks) == ["c"]
    assert not analysed(proto, "slices").ranks
    assert not analysed(proto, "groups").ranks


@st.composite
def networks(draw: st.DrawFn) -> ModelProto:
    """Draw chains of grouped convolutions, with what may stand between them."""
    lines, weights = [], {"first": (draw(st.sampled_from([4, 8, 12])), 3, 1, 1)}
    lines.append("v0 = Conv (x, first)")
    width, value = weights["first"][0], "v0"
    for at in range(draw(st.integers(1, 4))):
        kind, name = (
            draw(st.sampled_from(["grouped", "grouped", "dense", "sum", "norm", "split", "relu"])),
            f"v{at + 1}",
        )
        if kind in ("grouped", "sum", "dense"):
            new = 12 if kind != "sum" else width
            parts = 2 if kind == "sum" else 1
            for part in range(parts):
                groups = (
                    1 if kind == "dense" else draw(st.sampled_from([g for g in (2, 4) if width % g == new % g == 0]))
                )
                weights[f"w{at}{part}"] = (new, width // groups, 1, 1)
                lines.append(f"p{at}{part} = Conv <group = {groups}> ({value}, w{at}{part})")
            lines.append(f"{name} = Add (p{at}0, p{at}1)" if parts == 2 else f"{name} = Relu (p{at}0)")
            width = new
        elif kind == "norm":
            weights.update({f"{each}{at}": (width,) for each in ("scale", "shift", "mean", "var")})
            lines.append(f"{name} = BatchNormalization ({value}, scale{at}, shift{at}, mean{at}, var{at})")
        elif kind == "split":
            lines.append(f"s{at}, t{at} = Split <axis = 1> ({value})")
            lines.append(f"{name} = Concat <axis = 1> (t{at}, s{at})")
        else:
            lines.append(f"{name} = Relu ({value})")
        value = name
    weights["last"] = (2, width, 1, 1)
    lines.append(f"y = Conv ({value}, last)")
    return model("(float[2,3,4,4] x) => (float[] y) {\n" + "\n".join(lines) + "\n}", weights)


@examples(40)
@given(networks(), st.sampled_from(["auto", "own"]), st.integers(0, 3))
def test_random_grouped_networks_are_pruned_exactly(proto: ModelProto, grouped: Grouped, seed: int) -> None:
    analysis = analysed(proto, grouped)
    alike = analysis.by_position()
    ones, ones_alike = np.ones_like(analysis.grouping.sizes), np.ones_like(alike.grouping.sizes)
    assert analysis.cost.flops(ones) <= alike.cost.flops(ones_alike)
    check(analysis, seed=seed)


def _kept_norm(analysis: Analysis, proto: ModelProto) -> float:
    """Return the norm of the filters that a plan at half the FLOPs leaves in the grouped convolution."""
    options = graphprune.SolveOptions(criterion="l2", solver="uniform", round_to=1)
    plan = graphprune.solve(analysis, flops=0.5, options=options)
    members = [each for group in plan.groups for each in group.members]
    (gone,) = (each.removed for each in members if each.initializer == "middle" and each.axis == 0)
    return float((np.delete(norms(proto, "middle"), list(gone)) ** 2).sum())


def test_own_positions_keep_more_than_equal_ones() -> None:
    proto = chain("m = Conv <group = 4> (h, middle)", {"middle": (48, 8, 3, 3)}, width=32, after=48)
    analysis = analysed(proto)
    assert _kept_norm(analysis, proto) > _kept_norm(analysis.by_position(), proto)


def _solved(loaded: graphprune.Model) -> graphprune.Plan:
    return graphprune.solve(loaded, flops=0.5, options=graphprune.SolveOptions(round_to=1))


def test_a_plan_records_ranks_and_is_applied_with_them() -> None:
    loaded = load(model(BLOCK, WEIGHTS))
    plan = plan_file.loads(plan_file.dumps(_solved(loaded)))
    (entry,) = [each for each in plan.solver.options["choices"] if "ranks" in each]
    assert entry["node"] == "c"
    assert entry["ranks"] == analysed(model(BLOCK, WEIGHTS)).ranks["c"].tolist()
    pruned = graphprune.apply(loaded, plan)
    assert graphprune.verify(loaded, pruned, plan).status == "verified"


def test_a_plan_fits_other_weights_with_the_ranks_of_then() -> None:
    loaded, other = load(model(BLOCK, WEIGHTS)), model(BLOCK, WEIGHTS)
    for tensor in other.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    plan, rebound = _solved(loaded), load(other)
    assert analysed(other).ranks["c"].tolist() != analysed(loaded.proto).ranks["c"].tolist()
    pruned = graphprune.apply(rebound, plan, rebind=True)
    assert graphprune.verify(rebound, pruned, plan, rebind=True).status == "verified"


@pytest.mark.parametrize(
    ("ranks", "error"),
    [
        ([0] * 24, UsageError),
        (list(range(6)), UsageError),
        (["0"] * 24, PlanError),
        ("0", PlanError),
        ([10**30] * 24, PlanError),
        ([-1] * 24, PlanError),
        ([True], PlanError),
    ],
)
def test_ranks_that_are_none_are_refused(ranks: object, error: type[Exception]) -> None:
    loaded = load(model(BLOCK, WEIGHTS))
    plan = _solved(loaded)
    choices = [{**each, "ranks": ranks} if "ranks" in each else each for each in plan.solver.options["choices"]]
    solver = replace(plan.solver, options={**plan.solver.options, "choices": choices})
    with pytest.raises(error, match="ranks"):
        graphprune.apply(loaded, replace(plan, solver=solver))


@given(st.lists(st.booleans(), min_size=EACH, max_size=EACH).filter(lambda keep: sum(keep) > 1))
@examples(10)
def test_what_is_left_is_analysed_with_the_order_of_the_whole(keep: list[bool]) -> None:
    analysis = analysed(model(BLOCK, WEIGHTS))
    stays: Mask = np.ones(len(analysis.grouping.group_of), dtype=np.bool_)
    stays[analysis.grouping.starts[1] :] = keep
    left = analysis.of(analysis.model.replaced(prune(analysis, stays)), stays)
    kept = np.array(keep)[analysis.grouping.index_of[np.array(atoms_of(analysis, "c"))]]
    before = analysis.ranks["c"].reshape(GROUPS, EACH)
    for group in range(GROUPS):
        after = left.ranks["c"].reshape(GROUPS, -1)[group]
        assert np.argsort(after).tolist() == np.argsort(before[group][kept[group]]).tolist()


@pytest.mark.parametrize("options", [{"inherit": "merge"}, {"allow_empty": True}, {"criterion": "fpgm"}], ids=str)
def test_what_follows_the_analysis_knows_nothing_of_ranks(options: dict[str, Any]) -> None:
    analysis = graphprune.analyze(load(model(BLOCK, WEIGHTS)))
    assert analysis.ranks
    plan = graphprune.solve(analysis, flops=0.4, options=graphprune.SolveOptions(round_to=1, **options))
    assert graphprune.verify(analysis, graphprune.apply(analysis, plan), plan).status == "verified"


def test_dead_outputs_go_from_every_group_whatever_their_positions() -> None:
    proto = model(FREE["on the input"][0], {"w": (24, 2, 3, 3), "last": (2, 24, 1, 1)})
    kernel = array(proto, "w").astype(np.float32)
    for group, (one, other) in enumerate([(0, 5), (1, 2), (3, 4), (0, 1)]):
        kernel[[group * EACH + one, group * EACH + other]] = 0
    next(each for each in proto.graph.initializer if each.name == "w").CopyFrom(numpy_helper.from_array(kernel, "w"))
    loaded = load(proto)
    plan = graphprune.solve(loaded, (), graphprune.SolveOptions(lossless=True))
    assert [len(group.kept) for group in plan.groups] == [EACH - 2]
    assert graphprune.verify(loaded, graphprune.apply(loaded, plan), plan).ok


@pytest.mark.parametrize(("grouped", "taken"), [("groups", "whole groups"), ("slices", "a slice of each group")])
def test_what_a_choice_leaves_out_is_said_to_stay_for_what_goes(grouped: Grouped, taken: str) -> None:
    freezes = analysed(model(BLOCK, WEIGHTS), grouped).resolution.freezes
    assert {(reason.kind, reason.text) for _, reason in freezes if reason.kind.startswith("other")} == {
        ("other choice", f"here it is {taken} that may go")
    }
