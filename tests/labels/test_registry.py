# SPDX-License-Identifier: Apache-2.0
"""The registries of rules and of adapters."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from graphprune.errors import InternalError
from graphprune.labels import propagate  # noqa: F401 - registers the rules
from graphprune.labels.adapt import adapter, adapter_for, size_attributes, size_slots
from graphprune.labels.operator import Operator
from graphprune.labels.registry import lookup, registered, rule
from graphprune.model.graph import Node


def _node(op_type: str, domain: str = "") -> Node:
    return Node(0, helper.make_node(op_type, ["x"], ["y"], domain=domain))


def test_the_highest_version_not_above_the_model_s_is_used() -> None:
    @rule("Ruled", since=7, domain="com.example.registry")
    def old(op: Operator) -> None: ...

    @rule("Ruled", since=13, domain="com.example.registry")
    def new(op: Operator) -> None: ...

    found = [lookup("com.example.registry", "Ruled", version) for version in (6, 7, 12, 13, 99)]
    assert found == [None, old, old, new, new]
    with pytest.raises(InternalError, match="two rules for Ruled from version 7 on"):
        rule("Ruled", since=7, domain="com.example.registry")(new)


def test_a_rule_belongs_to_its_domain() -> None:
    assert lookup("", "Conv", 17) is not None
    assert lookup("com.example", "Conv", 1) is None


def test_operators_with_a_rule_exist() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    names.add("SimplifiedLayerNormalization")  # of onnxruntime, in the default domain all the same
    assert {name for domain, name in registered() if not domain} <= names


def test_only_one_adapter_per_operator() -> None:
    with pytest.raises(InternalError, match="two adapters for Reshape"):
        adapter("Reshape")(lambda op: NotImplemented)


def test_adapters_are_of_one_domain() -> None:
    assert adapter_for(_node("Reshape")) is not None
    assert adapter_for(_node("Reshape", "com.example")) is None
    assert size_slots(_node("Reshape")) == (1,)
    assert size_slots(_node("Relu")) == ()
    assert size_attributes(_node("Conv")) == {"group"}
    assert size_attributes(_node("Conv", "com.example")) == frozenset()
