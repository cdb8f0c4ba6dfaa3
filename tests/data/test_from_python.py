# SPDX-License-Identifier: Apache-2.0
"""What can be gone through in Python gives samples, as long as it ends."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphprune.data import from_python
from graphprune.data.callables import open_function
from graphprune.data.from_python import bounded
from graphprune.data.preprocessing import Preprocessing
from graphprune.errors import DataError

ENDLESS = """
import itertools
import numpy as np

def forever():
    while True:
        yield {"x": np.zeros((1, 8), np.float32)}

class Indexed:
    def __getitem__(self, at):
        return np.zeros((1, 8), np.float32), at

def indexed():
    return Indexed()
"""


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_python, "main_memory", lambda: 1 << 20)


@pytest.mark.parametrize(
    "entry",
    [
        np.zeros((1, 8)),
        {"x": np.zeros((1, 8))},
        ({"x": np.zeros((1, 8))}, np.zeros(1)),
        [np.zeros(3), [np.zeros(4)]],
        [[[0.5] * 64] * 64],
        "text",
        None,
    ],
    ids=["array", "dict", "pair", "nested", "numbers", "text", "nothing"],
)
def test_what_has_no_end_is_refused_before_it_fills_the_memory(entry: Any) -> None:
    taken = 0
    with pytest.raises(DataError, match="loader has not ended after"):
        for _ in bounded("loader", itertools.repeat(entry)):
            taken += 1
    assert 0 < taken <= (1 << 18) // 1024


def test_numbers_in_lists_count_as_what_they_take() -> None:
    image = [[[float(number) for number in range(64)] for _ in range(64)] for _ in range(3)]
    with pytest.raises(DataError, match="loader has not ended after"):
        list(itertools.islice(bounded("loader", itertools.repeat(image)), 3))


def test_a_list_that_holds_itself_counts_up_to_the_limit() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(DataError, match="loader has not ended after"):
        list(bounded("loader", [ring]))


def test_what_ends_is_passed_on() -> None:
    entries = [np.zeros((1, 8)), np.ones((1, 8))]
    assert list(bounded("loader", entries)) == entries


@pytest.mark.parametrize("function", ["forever", "indexed"])
def test_a_function_whose_samples_never_end_is_named(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"endless_{function}.py").write_text(ENDLESS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=f"endless_{function}:{function} has not ended"):
        open_function(f"endless_{function}:{function}", [], Preprocessing())
