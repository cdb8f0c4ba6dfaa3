# SPDX-License-Identifier: Apache-2.0
"""Asking: which criteria and solvers look at samples, so that others can be offered where there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["looks_at_samples", "may_look", "must_look"]

Method = TypeVar("Method", bound=Callable[..., object])

_MARK = "looks_at_samples"


def looks_at_samples(*, always: bool = True) -> Callable[[Method], Method]:
    """Return a decorator that marks a method, unchanged: it cannot do without samples, or with some settings only."""

    def mark(method: Method) -> Method:
        setattr(method, _MARK, "always" if always else "at times")
        return method

    return mark


def must_look(method: Callable[..., object]) -> bool:
    """Whether a method cannot do without samples."""
    return getattr(method, _MARK, "") == "always"


def may_look(method: Callable[..., object]) -> bool:
    """Whether a method looks at samples, at least with some settings."""
    return bool(getattr(method, _MARK, ""))
