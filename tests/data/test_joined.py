# SPDX-License-Identifier: Apache-2.0
"""Joined samples: any of both, in any order, on whichever axis counts them."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.array_types import Array, Ints
from graphprune.data.joined import joined
from graphprune.data.source import Batch, Source


class Numbers:
    """Samples that are numbers, one on axis 0 and one on axis 1, beside something that is the same for all."""

    labelled = True
    classes = ("a", "b")

    def __init__(self, *numbers: int) -> None:
        self.numbers = np.array(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, positions: Ints) -> Batch:
        chosen = self.numbers[positions]
        across: Array = np.stack([chosen, -chosen])
        return Batch(
            {"down": chosen, "across": across, "same": np.arange(3)}, chosen, frozenset({"same"}), {"across": 1}
        )


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 0, 3, 1], [1, 0], [3, 4], [2, 2, 4]])
def test_samples_come_in_the_order_that_is_asked_for(order: list[int]) -> None:
    first, second = Source.whole("own", Numbers(10, 11, 12)), Source.whole("made", Numbers(20, 21))
    both = joined(first, second)
    batch = both.read(np.array(order))
    expected = np.array([10, 11, 12, 20, 21])[order]
    assert (len(both), both.name, both.labelled) == (5, "own", False)
    assert batch.feeds["down"].tolist() == expected.tolist()
    assert batch.feeds["across"].tolist() == [expected.tolist(), (-expected).tolist()]
    assert batch.feeds["same"].tolist() == [0, 1, 2] and len(batch) == len(order)


def test_nothing_is_joined_to_nothing() -> None:
    alone = Source.whole("own", Numbers(1))
    assert joined(alone, None) is alone and alone.labelled


def test_a_part_of_a_source_is_joined_as_it_is() -> None:
    part = Source.whole("own", Numbers(10, 11, 12)).subset(np.array([2, 0]))
    assert joined(part, part).read(np.arange(4)).feeds["down"].tolist() == [12, 10, 12, 10]
