# SPDX-License-Identifier: Apache-2.0
"""Blocks lie between values that both networks have; what they learn is kept where unseen samples say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from outcome_cases import network
from outcome_cases import samples as stage_samples
from recovery_models import block, samples

from graphprune.accuracy import recover
from graphprune.analysis.analysis import Analysis
from graphprune.api import apply, load, reconcile, solve
from graphprune.data.evaluation import compare
from graphprune.errors import UsageError
from graphprune.plan.budget import BudgetRequest
from graphprune.plan.schema import Plan
from graphprune.planning.make_plan import SolveOptions
from graphprune.recovery.blocks import find_blocks
from graphprune.recovery.editable_model import EditableModel
from graphprune.recovery.recover_options import RecoverOptions


def halved() -> tuple[Analysis, Plan]:
    analysis = Analysis(load(network()))
    return analysis, solve(analysis, BudgetRequest("flops", 0.5), SolveOptions(criterion="l1", round_to=1))


def test_blocks_end_behind_additions_and_their_gates() -> None:
    analysis, plan = halved()
    pruned = apply(analysis, plan)
    blocks = find_blocks(EditableModel(pruned), analysis, plan)
    assert [(block.inputs, block.outputs) for block in blocks] == [
        (("b",), ("g",)),  # what makes b reads the samples themselves: there is nothing to make good
        (("g",), ("o",)),
        (("q",), ("scores",)),
    ]
    nodes = [node.index for block in blocks for node in block.nodes]
    assert nodes == sorted(set(nodes)) and nodes[-1] == len(pruned.proto.graph.node) - 1
    dense = {"g": 8, "o": 10, "scores": 4}
    for own in blocks:
        assert own.masks[0][1].shape == (dense[own.outputs[0]],)


def test_what_pruning_has_not_reached_is_in_no_block() -> None:
    analysis = Analysis(load(network()))
    whole = solve(analysis, BudgetRequest("flops", 1.0))
    groups = [replace(group, kept=group.kept[:5]) if group.name == "j" else group for group in whole.groups]
    assert {group.name for group in groups} >= {"j"}
    plan = reconcile(analysis, replace(whole, groups=tuple(groups))).plan
    blocks = find_blocks(EditableModel(apply(analysis, plan)), analysis, plan)
    assert {name for block in blocks for node in block.nodes for name in node.inputs}.isdisjoint({"stem", "first"})


def test_blocks_bring_back_more_than_single_layers() -> None:
    analysis, plan = halved()
    pruned, source = apply(analysis, plan), stage_samples(640)
    found = {
        method: recover(analysis, pruned, plan, source, RecoverOptions(method=method, samples=640))  # type: ignore[arg-type]
        for method in ("least-squares", "blocks")
    }
    unseen = stage_samples(256, seed=7)
    errors = {how: compare(analysis.model, own.model, unseen).relative_error for how, own in found.items()}
    assert errors["blocks"] < 0.97 * errors["least-squares"]
    assert found["blocks"].after < found["least-squares"].after
    again = recover(analysis, pruned, plan, source, RecoverOptions(method="blocks", samples=640))
    assert again.after == found["blocks"].after


def test_what_is_worse_on_held_out_samples_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis, plan = halved()
    pruned, source = apply(analysis, plan), stage_samples(160)
    least = recover(analysis, pruned, plan, source, RecoverOptions())

    def spoilt(analysis: Analysis, plan: Plan, recovered: object, *_: object) -> object:
        return pruned

    monkeypatch.setattr("graphprune.recovery.recover.refine_blocks", spoilt)
    found = recover(analysis, pruned, plan, source, RecoverOptions(method="blocks"))
    assert found.after == least.after and found.improved


def test_blocks_learn_from_as_much_as_memory_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis, plan = halved()
    pruned, source = apply(analysis, plan), stage_samples(320)
    seen: list[int] = []
    sizes: set[int] = set()

    def fitted(model: object, inputs: list[dict[str, np.ndarray]], targets: object, seed: int) -> dict[str, np.ndarray]:
        seen.append(len(inputs))
        sizes.update(len(value) for batch in inputs for value in batch.values())
        return {}

    monkeypatch.setattr("graphprune.training.block_fit.fit_block", fitted)
    recover(analysis, pruned, plan, source, RecoverOptions(method="blocks"))
    assert set(seen) == {35} and sizes == {8}
    monkeypatch.setattr("graphprune.recovery.refine_blocks._MOST_BYTES", 1)
    recover(analysis, pruned, plan, source, RecoverOptions(method="blocks"))
    assert seen[3:] == [1, 1, 1]
    sizes.clear()
    recover(analysis, pruned, plan, source, RecoverOptions(method="blocks", copies=2))
    assert sizes == {6}  # two images with their copies


@pytest.mark.parametrize("norm", [True, False])
def test_nothing_but_weights_changes(norm: bool) -> None:
    proto = block(norm=norm)
    analysis = Analysis(load(proto))
    plan = solve(analysis, BudgetRequest("flops", 0.6), SolveOptions(criterion="l1", round_to=1))
    pruned = apply(analysis, plan)
    found = recover(analysis, pruned, plan, samples(proto), RecoverOptions(method="blocks"))
    before, after = pruned.proto.graph, found.model.proto.graph
    assert [node.op_type for node in before.node] == [node.op_type for node in after.node]
    dims = {tensor.name: tuple(tensor.dims) for tensor in before.initializer}
    own = {tensor.name: tuple(tensor.dims) for tensor in after.initializer}
    assert {name: own[name] for name in dims} == dims


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis, plan = halved()
    monkeypatch.setattr("graphprune.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needed for recovery by blocks") as raised:
        recover(analysis, apply(analysis, plan), plan, stage_samples(), RecoverOptions(method="blocks"))
    assert "graphprune[train]" in (raised.value.hint or "")
    assert raised.value.exit_code == 2
