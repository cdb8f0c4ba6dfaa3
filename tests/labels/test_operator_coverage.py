# SPDX-License-Identifier: Apache-2.0
"""Every operator of ONNX has a rule, is frozen on purpose, or sees no channels."""

from __future__ import annotations

import inspect

import pytest
from onnx import defs
from oracle_check import analyze
from rule_cases import reasons
from tiny_models import chain, model

from graphprune.labels import rules
from graphprune.labels.registry import lookup, registered
from graphprune.labels.rules.frozen import FROZEN, FROZEN_BLOCKED, FROZEN_CONTRIB, IRRELEVANT, MICROSOFT
from graphprune.model.inference.contributed import BLOCKED

OPERATORS = sorted({schema.name for schema in defs.get_all_schemas_with_history() if schema.domain == ""})
LISTED = frozenset(FROZEN) | IRRELEVANT


@pytest.mark.parametrize("name", OPERATORS)
def test_is_ruled_or_frozen_or_irrelevant(name: str) -> None:
    assert ("", name) in registered(), "neither ruled nor listed as frozen or irrelevant"
    assert lookup("", name, defs.onnx_opset_version()) is not None


def test_lists_are_apart() -> None:
    assert not frozenset(FROZEN) & IRRELEVANT
    assert set(OPERATORS) >= LISTED, "listed, but no operator"


@pytest.mark.parametrize("name", sorted(LISTED))
def test_what_is_listed_has_no_other_rule(name: str) -> None:
    function = lookup("", name, defs.onnx_opset_version())
    assert function is not None
    assert inspect.getmodule(function) is rules.frozen


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_reasons_are_sentences(name: str) -> None:
    assert FROZEN[name][0].islower()
    assert not FROZEN[name].endswith(".")


def test_freezes_with_its_reason() -> None:
    proto = model(
        """(float[1,3,6,6] x) => (int64[4,K] y) {
            h = Conv (x, first)
            y = NonZero (h)
        }""",
        {"first": (8, 3, 1, 1)},
    )
    assert reasons(analyze(proto), "h", 1) == {("NonZero", "y")}


def test_an_operator_that_nobody_knows_freezes() -> None:
    proto = chain("m = Relu (h)")
    proto.graph.node[1].op_type = "NobodyKnows"
    proto.graph.node[1].domain = "com.example"
    proto.opset_import.add(domain="com.example", version=1)
    assert ("unknown operator", "m") in reasons(analyze(proto), "h", 1)


def test_contributed_operators_are_frozen_or_ruled() -> None:
    known = {name for domain, name in registered() if domain == MICROSOFT}
    assert set(FROZEN_CONTRIB) < known
    assert {name for domain, name in registered() if domain == BLOCKED} == set(FROZEN_BLOCKED)
