# SPDX-License-Identifier: Apache-2.0
"""The registry of operator rules, by domain, operator and first operator-set version."""

from __future__ import annotations

from collections.abc import Callable

from graphprune.errors import InternalError
from graphprune.labels.operator import Operator

__all__ = ["Rule", "is_blind", "lookup", "registered", "rule"]

Rule = Callable[[Operator], None]

_RULES: dict[tuple[str, str], list[tuple[int, Rule]]] = {}
_BLIND: set[Rule] = set()


def rule(*operators: str, since: int = 1, domain: str = "", blind: bool = False) -> Callable[[Rule], Rule]:
    """Register a label rule for one or more operators.

    Parameters
    ----------
    operators : str
        Operator names of one domain that the rule covers.
    since : int
        First operator-set version for which the rule holds; the highest one not above the
        version of the model is used.
    blind : bool
        Whether the rule works where shapes are not known, as one that freezes everything does.

    Raises
    ------
    InternalError
        If an operator already has a rule from the same version on.
    """

    def register(function: Rule) -> Rule:
        if blind:
            _BLIND.add(function)
        for name in operators:
            versions = _RULES.setdefault((domain, name), [])
            if any(version == since for version, _ in versions):
                raise InternalError(f"two rules for {name} from version {since} on")
            versions.append((since, function))
            versions.sort(key=lambda entry: entry[0])
        return function

    return register


def lookup(domain: str, op_type: str, version: int) -> Rule | None:
    """Return the rule for an operator, or None: an operator without a rule freezes what touches it."""
    found: Rule | None = None
    for since, function in _RULES.get((domain, op_type), ()):
        if since <= version:
            found = function
    return found


def is_blind(function: Rule) -> bool:
    """Whether a rule works where shapes are not known."""
    return function in _BLIND


def registered() -> frozenset[tuple[str, str]]:
    """Return (domain, operator) of every rule."""
    return frozenset(_RULES)
