# SPDX-License-Identifier: Apache-2.0
"""Properties on random models: how many examples are drawn, and how two analyses of one network are compared.

``GRAPHPRUNE_PROFILE=nightly`` draws many more examples, and other ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, assume, settings
from onnx import ModelProto
from random_models import Case, Choice

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Ints, Mask
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.surgery.slices import Kept

NIGHTLY = os.environ.get("GRAPHPRUNE_PROFILE") == "nightly"

Test = Callable[..., None]


def examples(count: int) -> Callable[[Test], Test]:
    """Run a property on `count` models, or on fifty times as many every night."""
    return settings(max_examples=count * (50 if NIGHTLY else 1), suppress_health_check=list(HealthCheck))


def analysed(case: Case) -> Analysis:
    """Analyse a model; one without groups says nothing."""
    analysis = Analysis(load(case.proto))
    assume(analysis.groups)
    return analysis


def atoms_along(analysis: Analysis, names: list[str], keep: Mask | None = None) -> Ints:
    """Return the atom of every (kept) slice along every axis of some values, -1 where it stays."""
    parts = [np.zeros(0, dtype=np.int64)]
    kept = Kept(analysis, np.ones(len(analysis.grouping.group_of), dtype=np.bool_) if keep is None else keep)
    for name in names:
        for labels in analysis.scope.values[name]:
            parts.append(analysis.grouping.atom_of[labels.expand()][kept.mask(labels)])
    return np.concatenate(parts)


def numbered(values: Ints) -> list[int]:
    """Replace values by numbers in the order of their first appearance; -1 stays -1."""
    seen: dict[int, int] = {-1: -1}
    return [seen.setdefault(value, len(seen)) for value in values.tolist()]


def activations(analysis: Analysis) -> list[str]:
    """Return the names of all values that have labels."""
    return [name for node in analysis.graph.nodes for name in node.outputs if name in analysis.scope.values]


def assert_same_groups(
    first: Analysis, second: Analysis, names: list[str], renamed: list[str], keep: Mask | None = None
) -> None:
    """Assert that the same slices of the same values hang together, atom by atom and group by group."""
    old, new = atoms_along(first, names, keep), atoms_along(second, renamed)
    assert len(old) == len(new)
    assert numbered(old) == numbered(new)
    groups = [np.where(a < 0, -1, np.append(x.grouping.group_of, -1)[a]) for a, x in ((old, first), (new, second))]
    assert numbered(groups[0]) == numbered(groups[1])


def again_analysed(case: Case, choice: Choice) -> tuple[Analysis, Mask, ModelProto, Analysis]:
    """Prune a model and analyse the result, where that must find the same groups.

    It need not where a choice had several outcomes (what has most atoms may be another one now), nor where a
    single slice is left on an axis that was long: such an axis stays, so what used to go with it, several slices of
    another axis for instance, is free to go its own ways.
    """
    analysis = analysed(case)
    assume(all(size >= 2 for size in analysis.grouping.sizes))
    assume(not analysis.scope.space.choices)
    keep = choice.keep(analysis, least=2)
    assume(not keep.all())
    kept = Kept(analysis, keep)
    lengths = [kept.mask(labels) for axes in analysis.scope.values.values() for labels in axes]
    lengths += [kept.mask(labels) for use in analysis.scope.space.uses for labels in use.axes]
    assume(all(mask.all() or mask.sum() > 1 for mask in lengths))
    pruned = prune(analysis, keep)
    return analysis, keep, pruned, Analysis(load(pruned))
