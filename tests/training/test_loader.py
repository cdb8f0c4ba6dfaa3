# SPDX-License-Identifier: Apache-2.0
"""Batches: their order and augmentation hang on seed, epoch and sample alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_cases import images, source

from graphprune.errors import UsageError
from graphprune.training.augment import Augmentation, parse_augmentation
from graphprune.training.loader import Loader, Samples

IMAGE = (3, 8, 8)


def augmentation(seed: int = 0) -> Augmentation:
    return parse_augmentation("flip,crop", IMAGE, seed)


def test_an_epoch_shows_every_sample_once() -> None:
    loader = Loader(source(40, labels=np.arange(40)), 8)
    assert loader.steps == 5
    epochs = [torch.cat([samples.labels for samples in loader.stream(first, first + 5)]) for first in (0, 5)]  # type: ignore[misc]
    assert all(sorted(epoch.tolist()) == list(range(40)) for epoch in epochs)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("names", ["flip,crop", "flip,crop,cutmix"])
def test_processes_share_each_batch_as_one_would_see_it(names: str) -> None:
    data, changes = source(40, labels=np.arange(40)), parse_augmentation(names, IMAGE, 0)
    whole = Loader(data, 8, changes)
    shares = [Loader(data, 8, changes, rank=rank, processes=2) for rank in range(2)]
    for step in (0, 6):
        one, parts = whole.read(step), [share.read(step) for share in shares]
        assert one.labels is not None
        order = [label for pair in zip(*(part.labels for part in parts), strict=True) for label in pair]  # type: ignore[misc]
        assert one.labels.tolist() == [int(label) for label in order]
        assert torch.equal(one.feeds["image"][0::2], parts[0].feeds["image"])
        assert torch.equal(one.feeds["image"][1::2], parts[1].feeds["image"])


def test_a_stream_that_starts_later_goes_on_as_if_it_had_not() -> None:
    loader = Loader(source(40), 8, augmentation())
    whole = [samples.feeds["image"] for samples in loader.stream(0, 8)]
    later = [samples.feeds["image"] for samples in loader.stream(5, 8)]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], later, strict=True))


def test_a_batch_must_be_divisible_among_the_processes() -> None:
    with pytest.raises(UsageError, match="batch of 7"):
        Loader(source(40), 7, processes=2)
    assert Loader(source(5), 128).batch == 5


def test_augmentation_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    value = torch.from_numpy(images(6))
    changed = augmentation()(value, 0, list(range(6)))
    assert torch.equal(torch.rand(4), expected)
    assert changed.shape == value.shape
    assert not torch.equal(changed, value)
    assert not torch.equal(changed, augmentation()(value, 1, list(range(6))))
    assert not torch.equal(changed, augmentation(seed=1)(value, 0, list(range(6))))


def test_channels_on_the_last_axis() -> None:
    value = torch.from_numpy(images(3))
    first = augmentation()(value, 0, [0, 1, 2])
    last = augmentation()(value.permute(0, 2, 3, 1).contiguous(), 0, [0, 1, 2])
    assert torch.equal(last.permute(0, 3, 1, 2), first)


def test_cutmix_gives_half_of_the_images_a_rectangle_of_another_one() -> None:
    count, side = 400, 16
    plain = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, side, side).contiguous()
    mixed = parse_augmentation("cutmix", (3, side, side), 0)(plain, 0, list(range(count)))
    shares = []
    for number, image in enumerate(mixed):
        foreign = image != number
        assert (image[foreign] == (number + count // 2) % count).all()
        rows, columns = foreign[0].any(1), foreign[0].any(0)
        assert torch.equal(foreign, (rows[:, None] & columns).expand_as(foreign))
        shares.append(float(foreign.float().mean()))
    assert 0.4 < np.mean([share > 0 for share in shares]) < 0.6
    assert max(shares) > 0.7
    assert torch.equal(plain[:, 0, 0, 0], torch.arange(count, dtype=torch.float32))


def test_what_augmentation_may_be() -> None:
    assert parse_augmentation("none", (), 0).transforms == []
    assert len(parse_augmentation("resized-crop, erase", IMAGE, 0).transforms) == 2
    own = parse_augmentation("torch:neg", IMAGE, 0)
    assert torch.equal(own(torch.ones(1, 3, 2, 2), 0, [0]), -torch.ones(1, 3, 2, 2))
    for name, message in (("torch:mean", r"shape \[\]"), ("builtins:len", "int"), ("math:sqrt", "failed")):
        with pytest.raises(UsageError, match=message):
            parse_augmentation(name, IMAGE, 0)(torch.ones(1, 3, 2, 2), 0, [0])
    with pytest.raises(UsageError, match="'rotate'"):
        parse_augmentation("rotate", IMAGE, 0)
    with pytest.raises(UsageError, match="needs images"):
        parse_augmentation("flip", (5,), 0)


def test_samples_are_taken_along_their_own_axes() -> None:
    feeds = {"image": torch.arange(6.0).reshape(3, 2), "state": torch.arange(6.0).reshape(2, 3), "rate": torch.ones(())}
    found = Samples(feeds, torch.arange(3), 3, {"state": 1}).taken(torch.tensor([2, 0, 2, 1]))
    assert found.count == 4
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0, 2, 1]
    assert found.feeds["image"].tolist() == [[4, 5], [0, 1], [4, 5], [2, 3]]
    assert found.feeds["state"].tolist() == [[2, 0, 2, 1], [5, 3, 5, 4]]
    assert found.feeds["rate"].tolist() == 1
