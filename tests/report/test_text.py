# SPDX-License-Identifier: Apache-2.0
"""How numbers and names are written for people."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.report import text


def test_examples() -> None:
    assert doctest.testmod(text).failed == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (1234, "1.23 k"), (999_999, "1.00 M"), (250_000_000, "250 M")],
)
def test_counts_have_three_digits(value: int, shown: str) -> None:
    assert text.count(value) == shown


@given(st.integers(0, 10**20))
def test_counts_are_right_to_half_a_percent(value: int) -> None:
    number, _, prefix = text.count(value).partition(" ")
    assert float(number) * 1000 ** " kMGTPE".index(prefix or " ") == pytest.approx(value, rel=0.006)


@given(st.text(), st.integers(5, 60))
def test_names_are_printable_and_short(name: str, width: int) -> None:
    shown = text.name(name, width)
    assert len(shown) <= width
    assert shown.isprintable()
    if len(name) <= width and name.isprintable() and not set(name) & set("\\'\""):
        assert shown == name
