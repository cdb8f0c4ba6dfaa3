# SPDX-License-Identifier: Apache-2.0
"""The brightness and contrast of the training data are found in what the first normalisations remember."""

from __future__ import annotations

import numpy as np
import pytest
from remembering_models import network, trained_on
from tiny_models import model

from graphprune.api import load
from graphprune.data.statistics import remembered
from graphprune.data.synthesis.exposure import affine_values, fit_exposure
from graphprune.data.synthesis.pink import pink_noise
from graphprune.model.graph import Graph


def standard_images(count: int, size: int, seed: int) -> np.ndarray:
    images = pink_noise(np.random.default_rng(seed), count, size, size)
    return (images - images.mean(axis=(0, 1, 2))) / images.std(axis=(0, 1, 2))


def nchw(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


@pytest.mark.parametrize(
    ("brightness", "contrast"),
    [((0.3, 0.3, 0.3), (0.4, 0.4, 0.4)), ((-0.2, 0.0, 0.4), (1.1, 0.9, 1.0)), ((120, 118, 110), (60, 61, 64))],
    ids=["0 to 1", "normalised", "0 to 255"],
)
def test_exposure_of_the_training_data_is_found(brightness: tuple[float, ...], contrast: tuple[float, ...]) -> None:
    wanted, spread = np.array(brightness, np.float32), np.array(contrast, np.float32)
    trained = trained_on(network(), nchw(wanted + spread * standard_images(256, 12, 1)))
    graph = Graph(trained.proto)
    found = fit_exposure(trained, graph, "image", standard_images(256, 12, 2), nchw, remembered(trained, graph))
    np.testing.assert_allclose(found.brightness, wanted, atol=0.15 * spread.mean())
    np.testing.assert_allclose(found.contrast, spread, rtol=0.15)
    assert found.mismatch is not None
    assert found.mismatch < 0.02


def test_without_statistics_images_stay_normalised() -> None:
    plain = load(model("(float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) { y = Conv (x, w) }", {"w": (4, 3, 3, 3)}))
    found = fit_exposure(plain, Graph(plain.proto), "x", standard_images(8, 8, 0), nchw, [])
    assert found.mismatch is None
    assert found.brightness.tolist() == [0, 0, 0]
    assert found.contrast.tolist() == [1, 1, 1]


def test_affine_values_end_where_something_bends_or_multiplies_inputs() -> None:
    text = """(float[n, 3] x) => (float[n, 3] y) {
        scaled = Div (x, w)
        sum = Add (scaled, x)
        divided = Div (w, x)
        squared = Mul (x, x)
        bent = Relu (sum)
        y = Add (bent, squared)
    }"""
    graph = Graph(model(text, {"w": (3,)}))
    assert affine_values(graph, "x") == {"x", "scaled", "sum"}
