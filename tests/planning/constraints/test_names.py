# SPDX-License-Identifier: Apache-2.0
"""Patterns name the groups whose channels nodes or weights make or pass; what names nothing is an error that helps."""

from __future__ import annotations

import pytest
from constraint_cases import analysis
from tiny_models import model

import graphprune
from graphprune.errors import UsageError
from graphprune.planning.constraints.group_names import Names


@pytest.fixture(scope="module")
def names() -> Names:
    return Names(analysis())


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("g001", {1}),
        ("stem", {0}),
        ("sum", {0}),  # a node without weights that the channels pass
        ("two", {0}),  # coupled with the stem through the sum
        ("two_weight", {0}),
        ("one_bias", {1}),
        ("one*", {1}),
        ("*relu", {0, 1}),
        ("t*", {0, 2}),
        ("[so]*", {0, 1}),
        ("*", {0, 1, 2}),
        ("re:^(one|three)$", {1, 2}),
        ("re:elu", {0, 1}),
    ],
)
def test_a_pattern_names_groups(names: Names, pattern: str, groups: set[int]) -> None:
    assert names.matching(pattern, "--only") == groups


@pytest.mark.parametrize(
    ("pattern", "message", "hint"),
    [
        ("stam", "--skip: 'stam' names no group", "the nearest names are 'stem'"),
        ("One", "names no group", "'one'"),  # case counts
        ("re:tree", "names no group", "'three'"),
        ("on", "names no group", "'one'"),  # a glob fits the whole name
        ("head", "'head' makes no channels that may go, it only reads those of g002 ('three')", "name the group"),
        ("head_w*", "only reads those of g002", "name the group"),
        ("", "'' names no group", "inspect"),
        ("re:(", "'re:(' is not a regular expression", None),
        ("re:a{99999999999}", "is not a regular expression", None),
    ],
)
def test_a_pattern_that_names_nothing_is_an_error(names: Names, pattern: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as raised:
        names.matching(pattern, "--skip")
    assert message in raised.value.message
    assert (hint or "") in (raised.value.hint or "")


def test_a_layer_that_normalises_what_it_reads_means_what_it_makes() -> None:
    proto = model(
        """(float[1,3,6,6] x) => (float[] y) {
            a = Conv (x, layer1_conv)
            b = BatchNormalization (a, layer2_scale, layer2_bias, layer2_mean, var)
            c = Relu (b)
            d = Conv (c, layer2_conv)
            e = Concat <axis = 1> (a, d)
            y = Conv (e, last)
        }""",
        {
            "layer1_conv": (8, 3, 1, 1),
            "layer2_conv": (6, 8, 1, 1),
            "last": (2, 14, 1, 1),
            **dict.fromkeys(("layer2_scale", "layer2_bias", "layer2_mean", "var"), (8,)),
        },
    )
    found = Names(graphprune.analyze(graphprune.load(proto)))
    assert found.matching("layer2_*", "--only") == {1}
    assert found.matching("layer2_scale", "--only") == {0}
    assert found.matching("layer2_[sb]*", "--only") == {0}
    assert found.single("layer2_conv", "--widths") == 1


def test_a_name_with_brackets_is_itself_before_it_is_a_glob() -> None:
    proto = model(
        "(float[1,3,6,6] x) => (float[] y) { a = Conv (x, u) \n b = Conv (a, v) \n y = Conv (b, w) }",
        {"u": (8, 3, 1, 1), "v": (8, 8, 1, 1), "w": (2, 8, 1, 1)},
    )
    for node, name in zip(proto.graph.node, ("cell[0]", "cell0", "end"), strict=True):
        node.name = name
    found = Names(graphprune.analyze(graphprune.load(proto)))
    assert found.matching("cell[0]", "--only") == {0}
    assert found.matching("cell[0-9]", "--only") == {1}


def test_one_group_has_to_be_meant_where_a_width_is_given() -> None:
    proto = model(
        """(float[1,3,6,6] x) => (float[] y) {
            a = Conv (x, u)
            b = Conv (x, v)
            c = Concat <axis = 1> (a, b)
            y = Conv (c, w)
        }""",
        {"u": (8, 3, 1, 1), "v": (4, 3, 1, 1), "w": (2, 12, 1, 1)},
    )
    for node, name in zip(proto.graph.node, ("left", "right", "join", "end"), strict=True):
        node.name = name
    found = Names(graphprune.analyze(graphprune.load(proto)))
    assert found.single("right", "--widths") == 1
    with pytest.raises(UsageError, match=r"'join' names 2 groups: g000 \('left'\), g001 \('right'\)"):
        found.single("join", "--widths")
    with pytest.raises(UsageError, match="names no group"):
        found.single("r*", "--widths")  # a width is for one group: no patterns
