# SPDX-License-Identifier: Apache-2.0
"""Every kind of image is seeded, within range, and smooth as photographs are."""

from __future__ import annotations

import numpy as np
import pytest

from graphprune.data.synthesis.blend import ANOTHER_KIND, SHARES, counts_of
from graphprune.data.synthesis.pixels import Painter

KINDS = [pytest.param(paint, id=paint.__name__) for paint, _ in (*SHARES, *ANOTHER_KIND)]


@pytest.mark.parametrize("paint", KINDS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (9, 5)])
def test_images_have_the_size_and_range_that_are_asked_for(paint: Painter, height: int, width: int) -> None:
    images = paint(np.random.default_rng(0), 6, height, width)
    assert images.shape == (6, height, width, 3)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.parametrize("paint", KINDS)
def test_the_seed_decides_everything(paint: Painter) -> None:
    one, same, other = (paint(np.random.default_rng(seed), 4, 16, 16) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).mean() > 0.01


@pytest.mark.parametrize("paint", KINDS)
def test_neighbouring_pixels_are_alike_and_images_are_not(paint: Painter) -> None:
    images = paint(np.random.default_rng(0), 200, 32, 32).mean(axis=3)
    centred = images - images.mean()
    neighbours = (centred[:, :, 1:] * centred[:, :, :-1]).mean() / (centred**2).mean()
    assert neighbours > 0.6
    assert images.mean(axis=(1, 2)).std() > 0.05


@pytest.mark.parametrize("count", [1, 2, 5, 7, 1024])
def test_a_blend_holds_all_kinds_in_their_shares(count: int) -> None:
    counts = counts_of(count)
    assert sum(counts) == count
    total = sum(share for _, share in SHARES)
    assert all(abs(own - count * share / total) < 1 for own, (_, share) in zip(counts, SHARES, strict=True))
