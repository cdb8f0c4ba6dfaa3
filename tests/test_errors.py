# SPDX-License-Identifier: Apache-2.0
"""How errors show text that is not their own."""

from __future__ import annotations

import doctest
from typing import TYPE_CHECKING

import pytest

from graphprune import errors
from graphprune.errors import near_file, quote

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 80


def test_examples_of_the_docstrings() -> None:
    assert doctest.testmod(errors).failed == 0


def test_a_folder_is_not_what_was_meant_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    assert near_file(tmp_path / "sweep") is None
    (tmp_path / "sweeps").touch()
    assert "sweeps" in (near_file(tmp_path / "sweep") or "")


@pytest.mark.parametrize("text", ["", "conv1", "a" * (LONGEST - 2), "it's"])
def test_a_short_text_is_shown_as_it_is(text: str) -> None:
    assert quote(text) == repr(text)


def test_a_long_path_keeps_the_name_of_its_file() -> None:
    shown = quote("/home/" + "folder/" * 40 + "model.onnx")
    assert len(shown) == LONGEST
    assert shown.startswith("'/home/folder/")
    assert shown.endswith("/model.onnx'")


def test_long_names_that_differ_at_either_end_stay_distinct() -> None:
    middle = "/layers/block" * 20
    names = [f"{front}{middle}{back}" for front in "ab" for back in ("/Conv_1", "/Conv_2")]
    assert len({quote(name) for name in names}) == len(names)


@pytest.mark.parametrize("text", ["\x1b[2J" * 40, "line\nline" * 40, "\N{RIGHT-TO-LEFT OVERRIDE}" * 40])
def test_nothing_but_what_is_printable_reaches_a_terminal(text: str) -> None:
    assert quote(text).isascii()
    assert quote(text).isprintable()


def test_letters_of_all_languages_are_letters() -> None:
    assert quote("Übung/网络.onnx") == "'Übung/网络.onnx'"
