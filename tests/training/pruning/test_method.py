# SPDX-License-Identifier: Apache-2.0
"""Methods of other packages that were written against the former names work for one more release, and are told."""

from __future__ import annotations

import importlib
import sys

import pytest
from pruning_cases import KINDS, labelled, trained

from graphprune.solvers.training.slimming import Slimming
from graphprune.training.pruning import method
from graphprune.training.pruning.run import Run


class _Former(Slimming):
    """A method that looks at the network under the former name."""

    name = "former"

    def begin_run(self, run: Run) -> None:
        """Do what a method does that does not define it."""
        method.Method.begin_run(self, run)

    def begin_course(self, course: Run) -> None:
        """Look at the network."""
        self.seen = course
        Slimming.begin_run(self, course)


def test_a_method_may_still_begin_a_course() -> None:
    former = _Former()
    with pytest.warns(DeprecationWarning, match="begin_course of the method 'former' is begin_run now"):
        plan = trained(KINDS["folded"](), former, labelled()).plan
    assert former.seen.groups
    assert plan == trained(KINDS["folded"](), _Now(), labelled()).plan


class _Now(Slimming):
    """The same method under the new name."""

    name = "former"


def test_a_course_is_a_run() -> None:
    sys.modules.pop("graphprune.training.pruning.course", None)
    with pytest.warns(DeprecationWarning, match=r"run\.Run"):
        former = importlib.import_module("graphprune.training.pruning.course")
    assert former.Course is Run


def test_an_outcome_is_the_result_of_a_method() -> None:
    with pytest.warns(DeprecationWarning, match="MethodResult"):
        former = method.Outcome
    assert former is method.MethodResult
    with pytest.raises(AttributeError, match="Income"):
        method.Income  # noqa: B018
