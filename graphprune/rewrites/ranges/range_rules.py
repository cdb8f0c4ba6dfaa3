# SPDX-License-Identifier: Apache-2.0
"""The registry of range rules, by operator. Of what an operator without a rule makes, nothing is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphprune.errors import InternalError

__all__ = ["Rule", "lookup", "rule"]

Rule = Callable[[Any, Any], None]
"""A function ``(ranges, node)`` that notes the bounds of what the node makes (see `walk.Ranges`)."""

_RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register the range rule of operators of the default domain."""

    def register(function: Rule) -> Rule:
        for name in operators:
            if name in _RULES:
                raise InternalError(f"two range rules for {name}")
            _RULES[name] = function
        return function

    return register


def lookup(op_type: str) -> Rule | None:
    """Return the rule of an operator, None where it has none."""
    return _RULES.get(op_type)
