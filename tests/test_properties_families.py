# SPDX-License-Identifier: Apache-2.0
"""What must hold for random transformers, recurrent networks, loops and quantised networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import onnx
from fast_oracle import compare
from hypothesis import given
from onnx import ModelProto
from oracle_check import assert_costs, check
from random_loops import loops
from random_models import Case, Choice, choices
from random_properties import activations, again_analysed, analysed, assert_same_groups, atoms_along, examples
from random_quantised import quantised
from random_recurrent import recurrent
from random_transformers import transformers

from graphprune.analysis.accounting import Accounts
from graphprune.analysis.analysis import Analysis
from graphprune.model.children.allowance import Allowance
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.verification import verify
from graphprune.verification.comparison import Comparison
from graphprune.verification.spec import Spec

FAMILIES = st.one_of(transformers(), recurrent(), quantised(), loops())


def _costs(analysis: Analysis, keep: np.ndarray, pruned: ModelProto) -> None:
    """Assert that the pruned model costs what was predicted, and that the checker accepts it."""
    onnx.checker.check_model(pruned, full_check=True)
    assert_costs(analysis, keep, Analysis(load(pruned), analysis.input_shapes))


@examples(120)
@given(transformers(), choices)
def test_pruned_transformers_equal_the_masked_ones(case: Case, choice: Choice) -> None:
    analysis = analysed(case)
    keep = choice.keep(analysis)
    pruned = prune(analysis, keep)
    compare(analysis, keep, pruned)
    _costs(analysis, keep, pruned)


@examples(60)
@given(recurrent(), choices)
def test_pruned_recurrent_networks_equal_the_masked_ones(case: Case, choice: Choice) -> None:
    analysis = analysed(case)
    keep = choice.keep(analysis)
    pruned = prune(analysis, keep)
    compare(analysis, keep, pruned)
    _costs(analysis, keep, pruned)


@examples(80)
@given(loops(), choices)
def test_pruned_loops_equal_the_masked_ones(case: Case, choice: Choice) -> None:
    analysis = analysed(case)
    check(analysis, choice.keep(analysis))


@examples(60)
@given(quantised(), choices)
def test_pruned_quantised_networks_equal_the_masked_ones(case: Case, choice: Choice) -> None:
    """Compared from one rounding to the next, as the verification does, but in this process."""
    analysis = analysed(case)
    keep = choice.keep(analysis)
    pruned = prune(analysis, keep)
    with mock.patch.object(verify, "run_child", _here):
        found = verify.verify_pruned(analysis, analysis.model.replaced(pruned), keep)
    assert found.ok, found
    _costs(analysis, keep, pruned)


def _here(module: str, place: Path, allowance: Allowance, prepare: Callable[[], object]) -> dict[str, object]:
    """Do what the child process of the verification does."""
    del module, allowance
    prepare()
    return Comparison(place, Spec.read(place)).run()


@examples(40)
@given(FAMILIES)
def test_keeping_everything_changes_no_byte(case: Case) -> None:
    analysis = analysed(case)
    pruned = prune(analysis, np.ones(len(analysis.grouping.group_of), dtype=np.bool_))
    assert pruned.SerializeToString(deterministic=True) == case.proto.SerializeToString(deterministic=True)


@examples(60)
@given(FAMILIES, choices)
def test_a_pruned_model_has_the_same_groups(case: Case, choice: Choice) -> None:
    analysis, keep, _, again = again_analysed(case, choice)
    names = activations(analysis)
    assert_same_groups(analysis, again, names, names, keep)


@examples(40)
@given(FAMILIES, choices, st.integers(0, 2**16))
def test_two_steps_cost_what_one_does(case: Case, choice: Choice, seed: int) -> None:
    analysis, keep, _, again = again_analysed(case, choice)
    names = activations(analysis)
    then, both = Choice("random", seed).keep(again), keep.copy()
    old, new = atoms_along(analysis, names, keep), atoms_along(again, names)
    both[old[old >= 0]] = then[new[old >= 0]]
    one, two = Analysis(load(prune(analysis, both))), Analysis(load(prune(again, then)))
    assert one.cost.flops(one.cost.sizes) == two.cost.flops(two.cost.sizes)
    if not Accounts(analysis.scope, analysis.grouping).shared:
        assert one.cost.params(one.cost.sizes) == two.cost.params(two.cost.sizes)
