# SPDX-License-Identifier: Apache-2.0
"""Models whose weights were changed after pruning are verified in memory as they are when they are files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import numpy_helper
from recovery_models import block, samples

import graphprune
from graphprune.errors import VerificationError
from graphprune.surgery.marks import weights_changed

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan


def recovered(original: Model) -> tuple[Plan, Model]:
    plan = graphprune.solve(original, graphprune.BudgetRequest("flops", 0.6))
    pruned = graphprune.apply(original, plan)
    return plan, graphprune.recover(original, pruned, plan, samples(block(norm=True))).model


def test_a_recovered_model_is_verified_in_memory_as_it_is_from_a_file(tmp_path: Path) -> None:
    original = graphprune.load(block(norm=True))
    plan, model = recovered(original)
    in_memory = graphprune.verify(original, model, plan)
    from_file = graphprune.verify(original, graphprune.load(graphprune.save(model, tmp_path / "it.onnx")), plan)
    assert in_memory == from_file
    assert "differs from it in weights" in in_memory.note


def test_more_than_weights_is_still_told_apart() -> None:
    original = graphprune.load(block(norm=True))
    plan, model = recovered(original)
    for tensor in model.proto.graph.initializer:
        if tensor.name == "second":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((12, 16, 3, 3), np.float32), "second"))
    with pytest.raises(VerificationError):
        graphprune.verify(original, model, plan)


def test_pruning_a_recovered_model_again_starts_from_the_weights_that_it_has() -> None:
    original = graphprune.load(block(norm=True))
    _, model = recovered(original)
    assert weights_changed(model.proto)
    again = graphprune.load(model.proto)
    plan = graphprune.solve(again, graphprune.BudgetRequest("flops", 0.7))
    pruned = graphprune.apply(again, plan)
    assert weights_changed(pruned.proto) == ""
    assert "differs from it in weights" not in graphprune.verify(again, pruned, plan).note
