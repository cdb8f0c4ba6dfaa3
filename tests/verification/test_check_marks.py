# SPDX-License-Identifier: Apache-2.0
"""Marks are not proofs: what a file says of itself is checked, and what cannot be is not claimed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from tiny_models import chain

import graphprune
from graphprune import BudgetRequest
from graphprune.errors import VerificationError
from graphprune.report.tables import check_text
from graphprune.surgery.marks import FINETUNED, KEPT, PLAN, VERIFIED, put_marks

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.plan.schema import Plan

MODEL = chain("c = Conv <pads = [1, 1, 1, 1]> (h, middle, b)\n m = Relu (c)", {"middle": (8, 8, 3, 3), "b": (8,)})


class Made:
    """A pruned model and what belongs to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.analysis = graphprune.analyze(graphprune.load(MODEL))
        self.plan: Plan = graphprune.solve(self.analysis, BudgetRequest("flops", 0.5))
        self.proto = graphprune.apply(self.analysis, self.plan).proto

    def verify(self) -> graphprune.Verification:
        """Verify the model as a file."""
        path = self.folder / "pruned.onnx"
        onnx.save(self.proto, path)
        return graphprune.verify(self.analysis, graphprune.load(path), self.plan)

    def change(self, name: str, function: Any) -> None:
        """Replace the values of a weight."""
        tensor = next(tensor for tensor in self.proto.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(function(numpy_helper.to_array(tensor)), name))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


@pytest.mark.parametrize("values", ["random", "zeros"])
def test_of_weights_that_were_changed_nothing_is_claimed(made: Made, values: str) -> None:
    assert made.verify().status == "verified"
    put_marks(made.proto, {FINETUNED: "labels"})
    random = np.random.default_rng(0)
    made.change(
        "middle", lambda old: random.random(old.shape, np.float32) if values == "random" else np.zeros_like(old)
    )
    found = made.verify()
    assert found.status == "surgery"
    said = check_text(found)
    assert said.startswith("surgery verified; weights are not those of the original")
    assert "finetuned" in said
    assert "verified" not in said.removeprefix("surgery verified").partition(";")[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(made: Made, value: float) -> None:
    put_marks(made.proto, {FINETUNED: "labels"})
    made.change("middle", lambda old: np.where(np.arange(old.size).reshape(old.shape) == 5, np.float32(value), old))
    with pytest.raises(VerificationError, match="'middle' holds values that are infinite or no numbers"):
        made.verify()


def _other_channels(proto: ModelProto) -> str:
    kept = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == KEPT))
    axis = kept["middle"]
    axis["0"] = [position + 1 for position in axis["0"]]
    return json.dumps(kept)


FORGED = {
    "other channels": (lambda proto: {KEPT: _other_channels(proto)}, "other channels"),
    "no JSON": (lambda _: {KEPT: "{"}, "other channels"),
    "another plan": (lambda _: {PLAN: "0" * 64}, "another plan"),
}


@pytest.mark.parametrize("finetuned", [False, True])
@pytest.mark.parametrize("case", FORGED)
def test_forged_marks_are_refused(made: Made, case: str, *, finetuned: bool) -> None:
    make, said = FORGED[case]
    put_marks(made.proto, make(made.proto))
    if finetuned:
        put_marks(made.proto, {FINETUNED: "labels"})
    with pytest.raises(VerificationError, match=said):
        made.verify()


def test_weights_that_were_changed_are_not_verified_whatever_a_file_says(made: Made) -> None:
    put_marks(made.proto, {FINETUNED: "labels", VERIFIED: "true"})
    with pytest.raises(VerificationError, match="changed afterwards"):
        made.verify()


def test_marks_that_are_not_there_claim_nothing(made: Made) -> None:
    del made.proto.metadata_props[:]
    assert made.verify().status == "verified"
