# SPDX-License-Identifier: Apache-2.0
"""Rules of convolutions: what they keep together, what they freeze, and that pruning them is exact."""

from __future__ import annotations

import numpy as np
import pytest
from oracle_check import analyze, check
from rule_cases import BOTH, Case, Stays, rule_tests
from tiny_models import chain, model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.choices import Grouped
from graphprune.model.load import load

GROUPED = """(float[2,3,6,6] x) => (float[] y) {
    h = Conv (x, first)
    m = Conv <group = 4> (h, middle, bias)
    y = Conv (m, last)
}"""

CASES = [
    Case(
        "dense",
        chain("m = Conv <pads = [1, 1, 1, 1]> (h, middle, bias)", {"middle": (6, 8, 3, 3), "bias": (6,)}, after=6),
        {"h": (8, "first.0 out, middle.1 in"), "m": (6, "middle.0 out, bias.0 per_channel, last.1 in")},
    ),
    Case(
        "one-dimension",
        chain("m = Conv <dilations = [2]> (h, middle)", {"middle": (4, 8, 3)}, after=4, spatial=(9,)),
        {"h": (8, "first.0 out, middle.1 in"), "m": (4, "middle.0 out, last.1 in")},
    ),
    Case(
        "three-dimensions",
        chain("m = Conv <strides = [2, 2, 1]> (h, middle)", {"middle": (4, 8, 1, 2, 2)}, after=4, spatial=(3, 4, 4)),
        {"h": (8, "first.0 out, middle.1 in"), "m": (4, "middle.0 out, last.1 in")},
    ),
    Case(
        "auto-pad",
        chain('m = Conv <auto_pad = "SAME_UPPER"> (h, middle)', {"middle": (4, 8, 3, 3)}, after=4),
        {"h": (8, "first.0 out, middle.1 in"), "m": (4, "middle.0 out, last.1 in")},
    ),
    Case(
        "depthwise",
        chain("m = Conv <group = 8> (h, middle, bias)", {"middle": (8, 1, 3, 3), "bias": (8,)}),
        {"h": (8, "first.0 out, middle.0 per_channel, bias.0 per_channel, last.1 in")},
    ),
    Case(
        "depthwise-multiplier",
        chain("m = Conv <group = 8> (h, middle, bias)", {"middle": (16, 1, 3, 3), "bias": (16,)}, after=16),
        {"h": (8, "first.0 out, middle.0 per_channel, bias.0 per_channel, last.1 in")},
    ),
    Case(
        # What reads the outputs costs most, and whole groups leave 3 of them, a slice of each 4.
        "whole-groups-reach-further",
        model(GROUPED, {"first": (8, 3, 1, 1), "middle": (12, 2, 1, 1), "bias": (12,), "last": (20, 12, 1, 1)}),
        {"h": (4, "first.0 out, middle.0 out, bias.0 per_channel, last.1 in")},
    ),
    Case(
        # The inputs stay; what a group makes may go all the same, position by position.
        "grouped-on-the-input",
        model(
            """(float[2,8,6,6] x) => (float[] y) {
                h = Conv <group = 4> (x, first, bias)
                y = Conv (h, last)
            }""",
            {"first": (12, 2, 1, 1), "bias": (12,), "last": (2, 12, 1, 1)},
        ),
        {"h": (3, "first.0 out, bias.0 per_channel, last.1 in")},
    ),
    Case(
        "transposed-grouped-on-the-input",
        model(
            """(float[2,8,6,6] x) => (float[] y) {
                h = ConvTranspose <group = 2> (x, first, bias)
                y = Conv (h, last)
            }""",
            {"first": (8, 5, 2, 2), "bias": (10,), "last": (2, 10, 1, 1)},
        ),
        {"h": (5, "first.1 out, bias.0 per_channel, last.1 in")},
    ),
    Case(
        # The input is also the graph's output: known only after the rule of the convolution has run.
        "grouped-on-what-stays",
        model(
            """(float[2,3,6,6] x) => (float[] h, float[] y) {
                h = Conv (x, first)
                m = Conv <group = 4> (h, middle)
                y = Conv (m, last)
            }""",
            {"first": (8, 3, 1, 1), "middle": (12, 2, 3, 3), "last": (2, 12, 1, 1)},
        ),
        {"m": (3, "middle.0 out, last.1 in")},
    ),
    Case(
        "multiplier-on-what-stays",
        model(
            """(float[2,3,6,6] x) => (float[] h, float[] y) {
                h = Conv (x, first)
                m = Conv <group = 8> (h, middle)
                y = Conv (m, last)
            }""",
            {"first": (8, 3, 1, 1), "middle": (24, 1, 3, 3), "last": (2, 24, 1, 1)},
        ),
        {"m": (3, "middle.0 per_channel, last.1 in")},
    ),
    Case(
        "a-slice-of-each-reaches-further",
        model(GROUPED, {"first": (32, 3, 1, 1), "middle": (24, 8, 3, 3), "bias": (24,), "last": (2, 24, 1, 1)}),
        {"h": (8, "first.0 out, middle.1 in"), "m": (6, "middle.0 out, bias.0 per_channel, last.1 in")},
    ),
    Case(
        "transposed",
        chain(
            "m = ConvTranspose <strides = [2, 2]> (h, middle, bias)", {"middle": (8, 6, 2, 2), "bias": (6,)}, after=6
        ),
        {"h": (8, "first.0 out, middle.0 in"), "m": (6, "middle.1 out, bias.0 per_channel, last.1 in")},
    ),
    Case(
        "transposed-depthwise",
        chain("m = ConvTranspose <group = 8> (h, middle, bias)", {"middle": (8, 1, 2, 2), "bias": (8,)}),
        {"h": (8, "first.0 out, middle.0 per_channel, bias.0 per_channel, last.1 in")},
    ),
    Case(
        "transposed-depthwise-multiplier",
        chain("m = ConvTranspose <group = 8> (h, middle)", {"middle": (8, 2, 2, 2)}, after=16),
        {"h": (8, "first.0 out, middle.0 in, last.1 in")},
    ),
    Case(
        "transposed-slice-of-each",
        chain(
            "m = ConvTranspose <group = 2, output_padding = [1, 1], strides = [2, 2]> (h, middle, bias)",
            {"middle": (16, 5, 3, 3), "bias": (10,)},
            width=16,
            after=10,
        ),
        {"h": (8, "first.0 out, middle.0 in"), "m": (5, "middle.1 out, bias.0 per_channel, last.1 in")},
    ),
    Case(
        "point-window-passes-live-spatial-axis",
        model(
            """(float[2,3,6] x) => (float[] y) {
                h = Conv (x, first)
                t = Transpose <perm = [0, 2, 1]> (h)
                c = Conv (t, point)
                m = Transpose <perm = [0, 2, 1]> (c)
                y = Conv (m, last)
            }""",
            {"first": (8, 3, 1), "point": (4, 6, 1), "last": (2, 8, 1)},
        ),
        {"h": (8, BOTH)},
    ),
    Case(
        "weight-is-an-activation",
        model(
            """(float[1,3,6,6] x, float[5,3,1,1] kernel) => (float[] y) {
                h = Conv (x, first)
                k = Conv (kernel, second)
                m = Conv (h, k)
                y = Relu (m)
            }""",
            {"first": (8, 3, 1, 1), "second": (8, 3, 1, 1)},
        ),
        {"h": (8, "first.0 out, second.0 out")},
    ),
]

STAYS = [
    Stays("graph-output", chain("m = Relu (h)"), ("graph output", ""), ("y", 1), {"h": (8, BOTH)}),
    Stays(
        "window-slides-along-channels",
        model(
            """(float[2,3,6] x) => (float[] y) {
                h = Conv (x, first)
                t = Transpose <perm = [0, 2, 1]> (h)
                c = Conv <pads = [1, 1]> (t, near)
                m = Transpose <perm = [0, 2, 1]> (c)
                z = Conv (m, last)
                y = Conv (z, end)
            }""",
            {"first": (8, 3, 1), "near": (6, 6, 3), "last": (4, 8, 1), "end": (2, 4, 1)},
        ),
        ("sliding window", "c"),
        groups={"z": (4, "last.0 out, end.1 in")},
    ),
    Stays(
        "transposed-along-channels",
        model(
            """(float[2,3,6] x) => (float[] y) {
                h = Conv (x, first)
                t = Transpose <perm = [0, 2, 1]> (h)
                c = ConvTranspose (t, near)
                y = Transpose <perm = [0, 2, 1]> (c)
            }""",
            {"first": (8, 3, 1), "near": (6, 4, 2)},
        ),
        ("transposed convolution", "c"),
    ),
    Stays(
        "grouped-on-the-input-one-output-each",
        model(
            """(float[2,8,6,6] x) => (float[] y) {
                h = Conv <group = 4> (x, first)
                y = Conv (h, last)
            }""",
            {"first": (4, 2, 1, 1), "last": (2, 4, 1, 1)},
        ),
        ("grouped convolution", "h"),
    ),
    Stays(
        "kernel-made-by-the-network",
        model(
            """(float[1,3,6,6] x, float[4,1] z) => (float[] y) {
                h = Gemm (z, first)
                k = Reshape (h, shape)
                y = Conv (x, k)
            }""",
            {"first": (1, 9)},
            shape=[4, 3, 1, 3],
        ),
        ("convolution kernel", "y"),
        ("k", 3),
    ),
    Stays(
        "single-channel",
        chain("c = Conv (h, one)\n m = Conv (c, back)", {"one": (1, 8, 1, 1), "back": (8, 1, 1, 1)}),
        ("graph output", ""),
        ("y", 1),
        {"h": (8, "first.0 out, one.1 in"), "m": (8, "back.0 out, last.1 in")},
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


@pytest.mark.parametrize("opset", [7, 11, 22])
def test_all_opsets(opset: int) -> None:
    proto = chain("m = Conv <group = 8> (h, middle)", {"middle": (8, 1, 3, 3)}, opset=opset)
    assert check(proto).pruned.graph.node[1].attribute[0].i == 4


def test_positions_of_groups() -> None:
    weights = {"first": (8, 3, 1, 1), "middle": (12, 2, 1, 1), "bias": (12,), "last": (20, 12, 1, 1)}
    (group,) = analyze(model(GROUPED, weights)).groups
    by_name = {member.initializer: member for member in group.members}
    assert by_name["first"].atoms.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert by_name["middle"].atoms.tolist() == np.repeat(np.arange(4), 3).tolist()
    assert by_name["last"].positions.tolist() == list(range(12))


def test_group_attribute_is_left_alone_where_each_group_loses_a_slice() -> None:
    weights = {"first": (32, 3, 1, 1), "middle": (24, 8, 3, 3), "bias": (24,), "last": (2, 24, 1, 1)}
    outcome = check(model(GROUPED, weights))
    assert outcome.pruned.graph.node[1].attribute[0].i == 4
    sizes = {tensor.name: list(tensor.dims) for tensor in outcome.pruned.graph.initializer}
    assert sizes["middle"] == [12, 4, 3, 3]


def test_depthwise_rows_are_per_channel_and_counted_once() -> None:
    analysis = analyze(chain("m = Conv <group = 8> (h, middle)", {"middle": (8, 1, 3, 3)}))
    layers = {layer.node: layer for layer in analysis.layers}
    assert layers["m"].flops(np.array([8])) == 2 * 2 * 8 * 9 * 16
    assert layers["m"].flops(np.array([3])) == 2 * 2 * 3 * 9 * 16


WEIGHTS = {"first": (32, 3, 1, 1), "middle": (24, 8, 3, 3), "bias": (24,), "last": (2, 24, 1, 1)}


@pytest.mark.parametrize(("grouped", "sizes"), [("auto", [8, 6]), ("slices", [8, 6]), ("groups", [4])])
def test_what_goes_can_be_asked_for(grouped: Grouped, sizes: list[int]) -> None:
    analysis = Analysis(load(model(GROUPED, WEIGHTS)), grouped=grouped)
    assert analysis.grouping.sizes.tolist() == sizes
    assert analysis.of(analysis.model).grouping.sizes.tolist() == sizes


def test_a_plan_is_applied_as_it_was_decided() -> None:
    loaded = load(model(GROUPED, WEIGHTS))
    asked = api.AnalyzeOptions(grouped="groups")
    plan = api.solve(api.analyze(loaded, asked), api.BudgetRequest("flops", 0.6), api.SolveOptions(round_to=1))
    pruned = api.apply(loaded, plan)
    assert next(a.i for a in pruned.proto.graph.node[1].attribute if a.name == "group") < 4
    assert api.verify(loaded, pruned, plan).status == "verified"
