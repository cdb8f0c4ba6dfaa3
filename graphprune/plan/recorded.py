# SPDX-License-Identifier: Apache-2.0
"""What a plan records beside what is done: the options of its solver, its trace, the facts of its steps.

Solvers and steps of users record what they like. What graphprune itself reads of it, to carry a plan out or to tell
about it, is checked where the file is read, so that no reader meets a value of another kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphprune.plan.strict_json import Value

__all__ = ["check_facts", "check_options", "check_trace"]


def check_options(options: Value) -> None:
    """Check the options of a solver that are read again.

    Raises
    ------
    PlanError
        If one is of another kind than graphprune writes it; says which.
    """
    _check_known(options, _OPTIONS)


def check_trace(entry: Value) -> None:
    """Check an entry of a trace, if it is of a stage that is read again.

    Raises
    ------
    PlanError
        If a part of it is of another kind than graphprune writes it; says which.
    """
    parts = entry.entries()
    stage = parts["stage"].data if "stage" in parts else None
    if isinstance(stage, str) and stage in _STAGES:
        _STAGES[stage](entry)


def check_facts(facts: Value) -> None:
    """Check the facts of a step that are read again.

    Raises
    ------
    PlanError
        If one is of another kind than graphprune writes it; says which.
    """
    _check_known(facts, {"samples": _count})


def _check_known(value: Value, checks: dict[str, Callable[[Value], object]]) -> None:
    for name, entry in value.entries().items():
        if name in checks:
            checks[name](entry)


def _count(value: Value) -> None:
    value.integer(0)


def _text(value: Value) -> None:
    value.text()


def _texts(value: Value) -> None:
    for item in value.items():
        item.text()


def _counts(value: Value) -> None:
    """Check a count for each of some names."""
    for entry in value.entries().values():
        entry.integer(0)


def _objects(value: Value) -> None:
    for item in value.items():
        item.entries()


def _latency(value: Value) -> None:
    parts = value.entries()
    _check_known(value, {"rounds": _count, "layers": _count, "alone": _count})
    if "alone" in parts and "layers" not in parts:
        value.fail("the key 'layers' is missing")


def _contest(value: Value) -> None:
    """Check a contest between criteria; null where there was none."""
    if value.data is None:
        return
    parts = _needed(value, ("chosen", "measure", "samples", "contest"))
    parts["chosen"].text()
    measured = "error" if parts["measure"].text() == "error" else "score"
    parts["samples"].integer(0)
    for entry in parts["contest"].items():
        told = _needed(entry, ("name", measured))
        told["name"].text()
        told[measured].number()


def _classes(value: Value) -> None:
    _check_known(value, {"names": _texts})


def _gated(value: Value) -> None:
    parts = _needed(value, ("expected_flops", "static_flops"))
    parts["expected_flops"].integer(0)
    parts["static_flops"].integer(0)


def _votes(value: Value) -> None:
    _check_known(value, {"group": _text})


def _needed(value: Value, names: tuple[str, ...]) -> dict[str, Value]:
    """Return the members of an object that has these and others."""
    parts = value.entries()
    for name in names:
        if name not in parts:
            value.fail(f"the key '{name}' is missing")
    return parts


_OPTIONS: dict[str, Callable[[Value], object]] = {
    "adapt": _contest,
    "choices": _objects,
    "latency": _latency,
    "not_merged": _counts,
    "scores_from": _counts,
}
_STAGES: dict[str, Callable[[Value], object]] = {"classes": _classes, "gated": _gated, "votes": _votes}
