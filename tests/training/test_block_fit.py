# SPDX-License-Identifier: Apache-2.0
"""A block learns what can be learned, and nothing where unseen batches get worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import model

from graphprune.api import load
from graphprune.data.session import Session
from graphprune.training.block_fit import _together, fit_block

TEXT = """(float[n, 4, 6, 6] x) => (float[n, 4, 6, 6] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, first)
    b = Relu (a)
    y = Conv (b, second)
}"""
WEIGHTS = {"first": (8, 4, 3, 3), "second": (4, 8, 1, 1)}


def batches(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((16, 4, 6, 6)).astype(np.float32)} for _ in range(count)]


def test_a_block_finds_back_to_what_it_was() -> None:
    proto = model(TEXT, WEIGHTS)
    loaded, given = load(proto), batches(16, 0)
    session = Session(loaded)
    wanted = [{"y": session.run(batch)[0]} for batch in given]
    spoilt = model(TEXT, WEIGHTS)
    first = next(tensor for tensor in spoilt.graph.initializer if tensor.name == "first")
    values = np.frombuffer(first.raw_data, np.float32) if first.raw_data else np.array(first.float_data, np.float32)
    rng = np.random.default_rng(1)
    noisy = values + 0.1 * np.abs(values).mean() * rng.standard_normal(values.shape)
    first.ClearField("float_data")
    first.raw_data = noisy.astype(np.float32).tobytes()
    found = fit_block(load(spoilt), given, wanted, seed=0, steps=300)
    assert set(found) == {"first", "second"}
    away = np.abs(found["first"].ravel() - values).mean()
    assert away < 0.8 * np.abs(noisy - values).mean()
    again = fit_block(load(spoilt), given, wanted, seed=0, steps=300)
    assert all(np.array_equal(found[name], again[name]) for name in found)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_noise_is_not_learned(count: int) -> None:
    loaded = load(model(TEXT, WEIGHTS))
    session = Session(loaded)
    given = batches(count, 0)
    rng = np.random.default_rng(2)
    outputs = [session.run(batch)[0] for batch in given]
    wanted = [{"y": (own + own.std() * rng.standard_normal(own.shape)).astype(np.float32)} for own in outputs]
    assert fit_block(loaded, given, wanted, seed=0, steps=50) == {}


def test_nothing_is_learned_where_nothing_could_judge() -> None:
    given = batches(1, 0)
    spoilt = [{"y": np.zeros((16, 4, 6, 6), np.float32)}]
    assert fit_block(load(model(TEXT, WEIGHTS)), given, spoilt, seed=0, steps=5) == {}


@pytest.mark.parametrize(
    ("shape", "together"), [((8, 16, 56, 56), 1), ((8, 16, 14, 14), 3), ((8, 16, 7, 7), 4), ((8, 1000), 4)]
)
def test_a_step_looks_at_fewer_images_where_maps_are_large(shape: tuple[int, ...], together: int) -> None:
    assert _together({"y": torch.zeros(shape)}) == together
