# SPDX-License-Identifier: Apache-2.0
"""The loop in docs/training.md does what it says, and a method from elsewhere can be used."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from pruning_cases import KINDS, labelled, trained
from source_tree import ROOT
from training_cases import images

import graphprune
from graphprune.solvers.saliency import Scores
from graphprune.training.pruning.method import Method, MethodResult
from graphprune.training.pruning.run import Run


def test_the_loop_of_the_documentation() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - from our own page
    model = graphprune.load(KINDS["depthwise"]())
    x = torch.from_numpy(images(16))
    found = names["sparse"](model, [(x, torch.arange(16) % 4)] * 3)
    assert found.sha256 != model.sha256
    plan = graphprune.solve(found, graphprune.BudgetRequest("flops", 0.7), graphprune.SolveOptions(round_to=1))
    assert graphprune.verify(found, graphprune.apply(found, plan), plan).status == "verified"


class Last(Method):
    """Keeps the last channels of every group."""

    name = "last"

    def finish(self, run: Run) -> MethodResult:
        scores = tuple(np.arange(group.size, dtype=np.float64) for group in run.groups)
        return MethodResult(Scores(scores, ("index",) * len(scores)))


def test_a_method_is_a_class_with_one_function() -> None:
    found = trained(KINDS["folded"](), Last(), labelled())
    for group in found.plan.groups:
        assert group.kept == tuple(range(group.size - len(group.kept), group.size))
