# SPDX-License-Identifier: Apache-2.0
"""Every image is followed by copies of itself: mirrored, and pieces that are enlarged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.array_types import Array, Ints
from graphprune.data.source import Batch, Source
from graphprune.data.varied import varied
from graphprune.errors import DataError


class Images:
    """Some images, and a number beside each of them."""

    labelled = True
    classes = ("a", "b")

    def __init__(self, images: Array) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, positions: Ints) -> Batch:
        return Batch({"image": self.images[positions], "number": positions.astype(np.float32)}, positions)


def images(channels: int = 3, *, last: bool = False, dtype: type = np.float32) -> Source:
    values = np.random.default_rng(0).uniform(0, 255, (3, channels, 8, 10))
    return Source.whole("images", Images((np.moveaxis(values, 1, -1) if last else values).astype(dtype)))


def read(source: Source, *positions: int) -> Array:
    return source.read(np.array(positions or range(len(source)))).feeds["image"]


def test_no_copies_are_the_source_itself() -> None:
    source = images()
    assert varied(source, 0, 0) is source


@pytest.mark.parametrize("last", [False, True])
def test_the_first_copy_is_the_mirror_image(last: bool) -> None:
    source = images(last=last)
    made = varied(source, 1, 0)
    assert len(made) == 6 and not made.labelled and made.classes == ()
    np.testing.assert_array_equal(read(made)[::2], read(source))
    width = 2 if last else 3
    np.testing.assert_array_equal(read(made)[1::2], np.flip(read(source), axis=width))
    assert made.read(np.arange(6)).feeds["number"].tolist() == [0, 0, 1, 1, 2, 2]


@given(st.permutations(range(12)), st.integers(0, 9))
def test_a_copy_depends_on_its_number_and_the_seed_alone(order: list[int], seed: int) -> None:
    whole = read(varied(images(), 3, seed))
    np.testing.assert_array_equal(read(varied(images(), 3, seed), *order), whole[order])


def test_pieces_differ_by_seed_and_number() -> None:
    one, two = read(varied(images(), 3, 0)), read(varied(images(), 3, 1))
    changed = [number for number in range(12) if number % 4 >= 2]
    assert all(not np.array_equal(one[number], two[number]) for number in changed)
    assert not np.array_equal(one[2], one[3])


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_piece_is_an_enlarged_part(dtype: type) -> None:
    """Of an image that grows evenly to the right, a piece does, too, more slowly, and nothing is outside of it."""
    ramp = np.broadcast_to(np.arange(0, 250, 25, dtype=np.float64), (1, 1, 8, 10)).astype(dtype)
    source = Source.whole("ramp", Images(ramp))
    pieces = read(varied(source, 20, 0))[2:].astype(np.float64)
    assert pieces.min() >= 0 and pieces.max() <= 225
    for piece in pieces:
        steps = np.diff(piece[0, 0])
        assert 0.6 * 25 - 1 <= abs(steps.mean()) <= 25 + 1e-3
        assert np.abs(steps - steps.mean()).max() < (1.01 if dtype is np.uint8 else 1e-3)
    assert {np.sign(piece[0, 0, -1] - piece[0, 0, 0]) for piece in pieces} == {-1.0, 1.0}


def test_a_plain_image_stays_as_it_is() -> None:
    plain = Source.whole("plain", Images(np.full((1, 3, 8, 10), 7.0, np.float32)))
    np.testing.assert_allclose(read(varied(plain, 4, 0)), 7.0, rtol=1e-6)


def test_what_is_no_image_is_said() -> None:
    with pytest.raises(DataError, match=r"no images to make copies of: 'image' of \[1, 5, 8, 10\]"):
        varied(images(5), 2, 0)


class Beside(Images):
    """Some images, and other values beside them."""

    def __init__(self, images: Array, other: Array, *, shared: bool) -> None:
        super().__init__(images)
        self.other, self.shared = other, shared

    def read(self, positions: Ints) -> Batch:
        other = self.other if self.shared else np.repeat(self.other, len(positions), axis=0)
        feeds = {"image": self.images[positions], "other": other}
        return Batch(feeds, None, frozenset({"other"} if self.shared else ()))


@pytest.mark.parametrize("shape", [(1, 1, 8, 10), (1, 4), (1, 3, 8, 10)])
def test_what_belongs_to_places_in_an_image_stays_with_it(shape: tuple[int, ...]) -> None:
    values, other = read(images()), np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    shared = varied(Source.whole("images", Beside(values, other, shared=True)), 3, 0)
    batch = shared.read(np.arange(12))
    assert len(batch.feeds["image"]) == 12
    np.testing.assert_array_equal(batch.feeds["other"], other)
    with pytest.raises(DataError, match="would no longer belong to 'other'"):
        varied(Source.whole("images", Beside(values, other, shared=False)), 3, 0)
