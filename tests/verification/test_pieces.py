# SPDX-License-Identifier: Apache-2.0
"""Models of which not all tensors fit into memory are compared in pieces, to the same result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from oracle_check import analyze, halves
from quantised_models import converted, quantised
from tiny_models import chain, model

from graphprune.analysis.analysis import Analysis
from graphprune.errors import UnsupportedModelError
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.verification import layout, room
from graphprune.verification.pieces import stops_of
from graphprune.verification.room import room_needed
from graphprune.verification.verify import verify_pruned

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.verification.spec import Spec

WEIGHTS = {"middle": (8, 8, 3, 3), "b": (8,), "side": (8, 8, 1, 1)}
SKIP = chain(
    "c = Conv <pads = [1, 1, 1, 1]> (h, middle, b)\n r = Relu (c)\n s = Conv (h, side)\n m = Add (r, s)", WEIGHTS
)
RESIZED = model(
    """(float[N,3,H,W] x) => (float[N,2,a,b] y) {
        h = Conv (x, first) s = Shape (x) space = Slice (s, two, four) to = Concat <axis = 0> (channels, space)
        p = Resize <mode = "linear"> (positions, , , to) q = Relu (h) m = Add (q, p) y = Conv (m, last)
    }""",
    {"first": (8, 3, 1, 1), "positions": (1, 8, 4, 4), "last": (2, 8, 1, 1)},
    two=[2],
    four=[4],
    channels=[1, 8],
)
"""A learned map that is brought to the size of the image: the list of sizes goes from piece to piece."""
CONSTANT = chain("two = Constant <value_float = 2.0> ()\n c = Mul (h, two)\n d = Relu (c)\n m = Mul (d, two)")


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[Spec]:
    """Let one tensor fill the memory, and collect what children are told."""
    told: list[Spec] = []
    write = layout.Spec.write

    def noted(spec: Spec, folder: Path) -> None:
        told.append(spec)
        write(spec, folder)

    monkeypatch.setattr(layout, "MOST_POOLED", 1)
    monkeypatch.setattr(layout.Spec, "write", noted)
    return told


@pytest.mark.parametrize("proto", [SKIP, RESIZED, CONSTANT], ids=["skip", "resized", "constant"])
def test_pieces_give_what_the_whole_gives(proto: ModelProto, specs: list[Spec]) -> None:
    analysis = analyze(proto)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    found = verify_pruned(analysis, load(pruned), keep)
    assert found.status == "verified"
    assert len(specs[0].masked) == len(specs[0].pruned) >= 4
    last = next(tensor for tensor in pruned.graph.initializer if tensor.name == "last")
    last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last)[:, ::-1].copy(), "last"))
    assert verify_pruned(analysis, load(pruned), keep).status == "failed"


def test_a_fault_in_the_middle_is_seen(specs: list[Spec]) -> None:
    analysis = analyze(SKIP)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    (relu,) = (node for node in pruned.graph.node if node.output[0] == "r")
    relu.op_type = "Neg"
    assert verify_pruned(analysis, load(pruned), keep).status == "failed"
    assert len(specs[0].masked) > 1


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
def test_pieces_of_models_that_are_cut_at_roundings(form: str, specs: list[Spec]) -> None:
    analysis = analyze(quantised(form))
    keep = halves(analysis)
    found = verify_pruned(analysis, load(prune(analysis, keep)), keep)
    assert found.status == "verified", found
    assert len(specs[0].masked) > 1


def test_stops() -> None:
    found = stops_of([({"a": 4}, 0), ({"b": 4}, 0), ({}, 0), ({"c": 9}, 0), ({"d": 1}, 0), ({"e": 1}, 0)], 8)
    assert found == {"a": 0, "b": 0, "c": 1, "d": 2, "e": 2}
    assert stops_of([({"a": 4}, 0), ({"b": 4, "c": 4}, 0)], 8) == {"a": 0, "b": 1, "c": 1}
    assert set(stops_of([({"a": 0}, 0), ({"b": 0}, 0)], 8).values()) == {0}
    assert stops_of([({"a": 1}, 7), ({}, 5), ({"b": 1}, 0)], 8) == {"a": 0, "b": 1}


@pytest.mark.parametrize("plain", [True, False])
def test_what_does_not_fit_into_memory_is_only_looked_at_in_pieces(
    plain: bool, specs: list[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = analyze(SKIP)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    monkeypatch.setattr(room, "main_memory", lambda: 2 * room_needed(load(pruned)) - (not plain))
    found = verify_pruned(analysis, load(pruned), keep)
    assert (found.status, found.sizes > 0) == ("verified", plain)
    assert ("was not run as a whole" in found.note) is not plain
    assert specs[0].in_pieces
    (relu,) = (node for node in pruned.graph.node if node.output[0] == "r")
    relu.op_type = "Neg"
    assert verify_pruned(analysis, load(pruned), keep).status == "failed"


def test_a_wide_copy_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = Analysis(load(converted(TensorProto.BFLOAT16)))
    keep = halves(analysis)
    monkeypatch.setattr(room, "main_memory", lambda: 100)
    with pytest.raises(UnsupportedModelError, match="float32 copies of both models"):
        verify_pruned(analysis, load(prune(analysis, keep)), keep)
