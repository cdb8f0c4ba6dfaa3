# SPDX-License-Identifier: Apache-2.0
"""Every method on every kind of network: it ends within the budget, verified, and nothing more fits."""

from __future__ import annotations

import numpy as np
import pytest
from pruning_cases import KINDS, QUICK, labelled, mapping, trained, unlabelled

from graphprune.analysis.polynomial import CostModel
from graphprune.errors import UsageError
from graphprune.solvers import training
from graphprune.training.pruning.train import Trained

METHODS = training.names()


def unused_steps(found: Trained) -> list[str]:
    """Return the groups that could take one more atom."""
    cost: CostModel = found.analysis.cost
    widths = np.array([len(group.kept) for group in found.plan.groups], dtype=np.int64)
    more = []
    for number, group in enumerate(found.plan.groups):
        if widths[number] < group.size:
            wider = widths.copy()
            wider[number] += 1
            if cost.flops(wider) <= found.plan.budget.limit:
                more.append(group.id)
    return more


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_with_labels(name: str, kind: str) -> None:
    found = trained(KINDS[kind](), training.get(name)(), labelled())
    assert unused_steps(found) == []
    assert found.plan.solver.options["epochs"] == QUICK.epochs
    assert found.after.accuracy is not None


@pytest.mark.parametrize("name", METHODS)
def test_no_classifier(name: str) -> None:
    kind = training.get(name)
    if kind.labelled:
        with pytest.raises(UsageError, match="needs labels"):
            trained(mapping(), kind(), unlabelled())
        return
    found = trained(mapping(), kind(), unlabelled())
    assert unused_steps(found) == []
    assert found.facts["losses"] == {"y": "mse"}
