# SPDX-License-Identifier: Apache-2.0
"""Explanations: groups with everything that goes with them, and the way to what keeps the rest."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from explain_cases import RESIDUAL, WEIGHTS, analysis_of, named
from tiny_models import model

import graphprune
from graphprune import Analysis, Explanation, explain
from graphprune.analysis.explain import AxisExplanation, Cause, Hop
from graphprune.errors import UsageError


@pytest.fixture(scope="module")
def residual() -> Analysis:
    return analysis_of(RESIDUAL, WEIGHTS)


def axis(found: Explanation, tensor: str, number: int) -> AxisExplanation:
    (result,) = (entry for entry in found.axes if (entry.tensor, entry.axis) == (tensor, number))
    return result


def cause(found: Explanation, tensor: str, number: int) -> Cause:
    (result,) = axis(found, tensor, number).causes
    return result


def names(chain: tuple[Hop, ...]) -> list[str]:
    return [hop.name for hop in chain if hop.name]


def test_a_weight_with_one_axis_free_and_one_tied_to_the_input(residual: Analysis) -> None:
    found = explain(residual, "stem")
    assert (found.kind, found.name) == ("tensor", "stem")
    assert axis(found, "stem", 0).groups == {"g000": 6}
    assert axis(found, "stem", 0).causes == ()
    held = cause(found, "stem", 1)
    assert (held.kind, held.slices, held.text) == ("graph input", 3, "belongs to the graph input 'image'")
    assert names(held.chain) == ["stem", "Conv_a"]
    assert cause(found, "stem", 2).kind == "convolution kernel"


def test_everything_that_goes_together_is_listed_once_with_what_couples_it(residual: Analysis) -> None:
    (stream,) = explain(residual, "stem").groups
    assert (stream.id, stream.size, stream.exact) == ("g000", 6, True)
    found = {(entry.tensor, entry.axis): entry for entry in stream.companions}
    assert set(found) == {("stem", 0), ("first", 1), ("second", 0), ("shift", 0), ("head", 1)}
    assert len(found) == len(stream.companions)
    start = found["stem", 0]
    assert (start.role, start.slices, start.after, start.through) == ("out", 6, None, ())
    assert names(found["first", 1].through) == ["Conv_a", "Relu_b", "Conv_c"]
    assert "Add_f" in names(found["second", 0].through)
    assert found["shift", 0].after == Hop("second", axis=0)
    assert names(found["shift", 0].through) == ["Conv_e"]
    assert names(found["head", 1].through)[-2:] == ["Flatten_h", "Gemm_scores"]


def test_every_step_hangs_on_one_that_was_told_before(residual: Analysis) -> None:
    for name in WEIGHTS:
        for group in explain(residual, name).groups:
            told: set[tuple[str, int] | None] = {None}
            for entry in group.companions:
                assert (entry.after and (entry.after.name, entry.after.axis)) in told
                told.add((entry.tensor, entry.axis))


def test_a_graph_output_freezes_with_the_way_to_it(residual: Analysis) -> None:
    held = cause(explain(residual, "head"), "head", 0)
    assert (held.kind, held.node, held.slices) == ("graph output", "", 4)
    assert held.text == "reaches the graph output 'scores'"
    assert names(held.chain) == ["head", "Gemm_scores", "scores"]


def test_a_node_is_explained_by_its_tensors_each_coupled_set_once(residual: Analysis) -> None:
    found = explain(residual, "Conv_c")
    assert found.kind == "node"
    assert [(entry.tensor, entry.axis) for entry in found.axes] == [("first", number) for number in range(4)]
    assert {group.id for group in found.groups} == {"g000", "g001"}
    assert [(entry.tensor, entry.groups) for entry in explain(residual, "Relu_b").axes] == [("b", {"g000": 6})]


def test_an_activation(residual: Analysis) -> None:
    found = explain(residual, "f")
    assert found.kind == "value"
    assert [entry.groups for entry in found.axes] == [{}, {"g000": 6}, {}, {}]
    assert cause(found, "f", 2).kind == "graph input"
    assert cause(explain(residual, "g"), "g", 2).kind == "whole axis"
    assert cause(explain(residual, "image"), "image", 1).kind == "graph input"


def test_all_slices_are_accounted_for(residual: Analysis) -> None:
    for node in residual.graph.nodes:
        for entry in explain(residual, node.label).axes:
            assert sum(entry.groups.values()) + sum(found.slices for found in entry.causes) == entry.size


LONG = """
(float[1,3,8,8] image) => (float[] logits) {
    a = Conv (image, stem)
    b = Relu (a)
    c = Conv (image, other)
    logits = Add (b, c)
}
"""


def test_the_chain_runs_through_nodes_and_couplings() -> None:
    found = explain(analysis_of(LONG, {"stem": (6, 3, 3, 3), "other": (6, 3, 3, 3)}), "stem")
    held = cause(found, "stem", 0)
    assert held.kind == "graph output"
    assert names(held.chain) == ["stem", "Conv_a", "Relu_b", "Add_logits", "logits"]


SOFTMAX = """
(float[1,3,8,8] image) => (float[] y) {
    a = Conv (image, stem)
    b = Softmax <axis = 1> (a)
    c = Conv (b, deep)
    d = Softmax <axis = 1> (a)
    e = GlobalAveragePool (d)
    f = Conv (c, last)
    g = GlobalAveragePool (f)
    y = Add (e, g)
}
"""


def test_the_nearest_reason_is_named_and_the_others_are_counted() -> None:
    weights = {"stem": (6, 3, 3, 3), "deep": (8, 6, 3, 3), "last": (6, 8, 3, 3)}
    analysis = analysis_of(SOFTMAX, weights)
    held = cause(explain(analysis, "stem"), "stem", 0)
    assert (held.kind, held.op) == ("Softmax", "Softmax")
    assert held.node in {"Softmax_b", "Softmax_d"}
    assert held.others["Softmax"] == 1


def test_what_lies_behind_a_frozen_axis_is_traced_back_to_what_froze_it() -> None:
    weights = {"stem": (6, 3, 3, 3), "deep": (8, 6, 3, 3), "last": (6, 8, 3, 3)}
    held = cause(explain(analysis_of(SOFTMAX, weights), "deep"), "deep", 1)
    assert (held.kind, held.node) == ("Softmax", "Softmax_b")
    assert names(held.chain) == ["deep", "Conv_c", "Softmax_b"]


PARTLY = """
(float[1,4,8,8] image) => (float[] y) {
    a = Conv (image, stem)
    b = Slice (image, zero, six, two)
    c = Slice (b, zero, six, three)
    d = Concat <axis = 1> (a, c)
    e = Conv (d, deep)
    y = GlobalAveragePool (e)
}
"""


def test_an_axis_that_is_partly_free() -> None:
    proto = named(model(PARTLY, {"stem": (5, 4, 3, 3), "deep": (3, 9, 1, 1)}, zero=[0], six=[6], two=[2], three=[3]))
    found = explain(graphprune.analyze(graphprune.load(proto)), "deep")
    entry = axis(found, "deep", 1)
    assert entry.groups == {"g000": 5}
    assert sum(held.slices for held in entry.causes) == 4


def test_a_constant_that_belongs_to_no_channel(residual: Analysis) -> None:
    text = "(float[1,3,8,8] image) => (float[] y) { a = Mul (image, factor) y = Relu (a) }"
    found = explain(analysis_of(text, {"factor": (1,)}), "factor")
    assert cause(found, "factor", 0).kind == "whole axis"


def test_a_node_without_a_name_is_called_by_its_output() -> None:
    analysis = graphprune.analyze(graphprune.load(model(RESIDUAL, WEIGHTS)))
    assert explain(analysis, "c").axes[1].groups == {"g001": 8}


@pytest.mark.parametrize(
    ("name", "near"), [("stemm", "'stem'"), ("Conv_", "'Conv_"), ("head\x1b", "'head'"), ("a" * 100_000, "inspect -v")]
)
def test_an_unknown_name_gets_its_neighbours(residual: Analysis, name: str, near: str) -> None:
    with pytest.raises(UsageError, match="nothing in 'tiny' is called") as caught:
        explain(residual, name)
    assert caught.value.hint is not None
    assert near in caught.value.hint
    assert "\x1b" not in caught.value.message


def test_explanations_are_values(residual: Analysis) -> None:
    assert explain(residual, "first") == explain(residual, "first")
    assert hash(explain(residual, "first").groups)
    assert astuple(explain(residual, "first"))[0] == "first"


def test_a_long_residual_stream_is_explained_by_short_ways() -> None:
    blocks = 300
    lines = ["s0 = Conv (image, stem)"]
    weights: dict[str, tuple[int, ...]] = {"stem": (16, 3, 1, 1)}
    for block in range(blocks):
        lines.append(f"h{block} = Conv (s{block}, in{block})")
        lines.append(f"o{block} = Conv (h{block}, out{block})")
        lines.append(f"s{block + 1} = Add (s{block}, o{block})")
        weights |= {f"in{block}": (16, 16, 1, 1), f"out{block}": (16, 16, 1, 1)}
    lines.append(f"y = ReduceSum (s{blocks}, axes)")
    text = "(float[1,3,4,4] image) => (float[] y) {" + "\n".join(lines) + "}"
    analysis = graphprune.analyze(graphprune.load(named(model(text, weights, axes=np.array([1], dtype=np.int64)))))
    found = explain(analysis, "stem")
    (stream,) = found.groups
    assert len(stream.companions) == 1 + 2 * blocks
    assert max(len(entry.through) for entry in stream.companions) < 10
