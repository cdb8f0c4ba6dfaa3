# SPDX-License-Identifier: Apache-2.0
"""Domino: an atom is worth all the weights that its removal deletes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import numpy_helper
from oracle_check import analyze
from solver_cases import Group, member
from tiny_models import model

from graphprune.errors import UsageError
from graphprune.solvers import criteria
from graphprune.solvers.criteria import Material
from graphprune.surgery.prune import prune

OUT, IN_OUT = criteria.get("domino-o"), criteria.get("domino-io")
RNG = np.random.default_rng(9)


def coupled() -> tuple[Group, dict[str, np.ndarray]]:
    """Return 5 atoms made by two convolutions and a depthwise one, read by a convolution and a linear layer."""
    tensors = {
        "a.w": RNG.standard_normal((5, 2, 3, 3)),
        "b.w": RNG.standard_normal((7, 4, 1, 1)),
        "d.w": RNG.standard_normal((5, 1, 3, 3)),
        "next.w": RNG.standard_normal((3, 5, 1, 1)),
        "fc.w": RNG.standard_normal((20, 6)),
        "a.b": RNG.standard_normal(5),
    }
    blocks = np.repeat(np.arange(5), 4)
    members = (
        member("a.w", 0, "out", "Conv", 1, 5),
        member("a.b", 0, "per_channel", "Conv", 2, 5),
        member("b.w", 0, "out", "Conv", 1, 5, start=1),
        member("d.w", 0, "per_channel", "Conv", 1, 5),
        member("next.w", 1, "in", "Conv", 1, 5),
        member("fc.w", 0, "in", "MatMul", 1, blocks),
    )
    return Group("g000", 5, members), tensors


@pytest.mark.parametrize(("base", "measure"), [("l1", np.abs), ("l2", np.square)])
@pytest.mark.parametrize("scale", ["none", "count", "weights-removed"])
def test_sums_and_scales_agree_with_a_loop(base, measure, scale):
    group, tensors = coupled()
    material = Material([group], tensors.__getitem__)
    found = {way: score(material, base=base, scale=scale).per_group[0] for way, score in (("o", OUT), ("io", IN_OUT))}
    for atom in range(5):
        made = [tensors["a.w"][atom], tensors["b.w"][atom + 1], tensors["d.w"][atom]]
        read, linear = tensors["next.w"][:, atom], tensors["fc.w"][4 * atom : 4 * atom + 4]
        for way, parts in (("o", made), ("io", [*made, read])):
            removed = {"none": [], "count": parts, "weights-removed": [*made, read, linear]}[scale]
            by = sum(part.size for part in removed) or 1
            assert found[way][atom] == pytest.approx(sum(measure(part).sum() for part in parts) / by)


def test_on_a_chain_domino_o_is_the_plain_saliency():
    tensors = {"w": RNG.standard_normal((6, 3, 3, 3))}
    material = Material([Group("g000", 6, (member("w", 0, "out", "Conv", 1, 6),))], tensors.__getitem__)
    np.testing.assert_allclose(OUT(material).per_group[0], criteria.get("l1")(material).per_group[0])


def test_two_parallel_convolutions_count_as_the_one_they_add_up_to():
    weight = RNG.standard_normal((6, 3, 3, 3))
    tensors = {"w": weight, "part": 0.3 * weight, "rest": 0.7 * weight}
    groups = [
        Group("g000", 6, (member("w", 0, "out", "Conv", 1, 6),)),
        Group("g001", 6, (member("part", 0, "out", "Conv", 1, 6), member("rest", 0, "out", "Conv", 1, 6))),
    ]
    whole, split = OUT(Material(groups, tensors.__getitem__)).per_group
    np.testing.assert_allclose(whole, split)


def test_a_weight_that_reads_what_it_makes_counts_once():
    tensors = {"w": np.array([[1.0, 10.0], [100.0, 1000.0]])}
    group = Group("g000", 2, (member("w", 0, "out", "Conv", 1, 2), member("w", 1, "in", "Conv", 1, 2)))
    material = Material([group], tensors.__getitem__)
    assert IN_OUT(material).per_group[0].tolist() == [111, 1110]
    assert IN_OUT(material, scale="count").per_group[0].tolist() == [37, 370]
    assert OUT(material, scale="weights-removed").per_group[0].tolist() == [11 / 3, 1100 / 3]


RESIDUAL = """(float[1,3,8,8] x) => (float[1,5] y) {
    stem = Conv <pads=[1,1,1,1]> (x, stem_w)
    inner = Conv <pads=[1,1,1,1]> (stem, inner_w)
    act = Relu (inner)
    deep = Conv <group=6, pads=[1,1,1,1]> (act, deep_w)
    outer = Conv (deep, outer_w)
    sum = Add (stem, outer)
    last = Conv <pads=[1,1,1,1]> (sum, last_w)
    both = Add (sum, last)
    flat = GlobalAveragePool (both)
    rows = Flatten (flat)
    y = Gemm (rows, head)
}"""
SHAPES = {
    "stem_w": (4, 3, 3, 3),
    "inner_w": (6, 4, 3, 3),
    "deep_w": (6, 1, 3, 3),
    "outer_w": (4, 6, 1, 1),
    "last_w": (4, 4, 3, 3),
    "head": (4, 5),
}


def convolution_mass(proto) -> float:
    """Return the sum of all absolute weights of convolutions."""
    return sum(np.abs(numpy_helper.to_array(one)).sum() for one in proto.graph.initializer if len(one.dims) == 4)


def test_domino_io_is_the_mass_of_the_convolution_weights_that_go():
    proto = model(RESIDUAL, SHAPES)
    analysis = analyze(proto)
    scores = IN_OUT(Material(analysis.groups, analysis.read)).per_group
    assert sorted(len(values) for values in scores) == [4, 6]
    for atom, score in enumerate(np.concatenate(scores)):
        pruned = prune(analysis, np.arange(10) != atom)
        assert score == pytest.approx(convolution_mass(proto) - convolution_mass(pruned), rel=1e-5)


def test_groups_without_filters_fall_back_to_readers_then_to_the_average():
    tensors = {"a": np.array([[1.0], [3.0]]), "b": np.array([[2.0, -4.0, 6.0]])}
    groups = [
        Group("g000", 2, (member("a", 0, "out", "Conv", 1, 2),)),
        Group("g001", 3, (member("b", 1, "in", "Gemm", 1, 3),)),
        Group("g002", 2, ()),
    ]
    for score in (OUT, IN_OUT):
        scores = score(Material(groups, tensors.__getitem__))
        assert [values.tolist() for values in scores.per_group] == [[1, 3], [2, 4, 6], [3, 3]]


@pytest.mark.parametrize("score", [OUT, IN_OUT])
def test_what_it_cannot_do_is_refused(score):
    material = Material([], {}.__getitem__)
    with pytest.raises(UsageError, match="'base' cannot be 'l3': there are l1, l2"):
        score(material, base="l3")
    with pytest.raises(UsageError, match="'scale' cannot be 'mean': there are none, count, weights-removed"):
        score(material, scale="mean")
    assert score(dataclasses.replace(material, aggregate="sum")).per_group == ()
    with pytest.raises(UsageError, match="aggregated by 'max': Domino adds up") as raised:
        score(dataclasses.replace(material, aggregate="max"))
    assert "scale=count" in raised.value.hint
