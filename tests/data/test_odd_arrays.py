# SPDX-License-Identifier: Apache-2.0
"""Arrays from Python may lie in memory in any way: the same samples are the same whatever their bytes look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import chain

from graphprune import api
from graphprune.accuracy import samples
from graphprune.array_types import Array
from graphprune.model.load import load

Change = Callable[[Array, Path], Array]
PLAIN = np.random.default_rng(0).standard_normal((6, 3, 6, 6)).astype(np.float32)


def _mapped(array: Array, path: Path) -> Array:
    np.save(path / "x.npy", array)
    mapped: Array = np.load(path / "x.npy", mmap_mode="r")
    return mapped


def _read_only(array: Array, _: Path) -> Array:
    own = array.copy()
    own.setflags(write=False)
    return own


LAYOUTS: dict[str, Change] = {
    "big-endian": lambda array, _: array.astype(">f4"),
    "fortran": lambda array, _: np.asfortranarray(array),
    "every-other-of-twice": lambda array, _: np.repeat(array, 2, axis=0)[::2],
    "backwards-twice": lambda array, _: array[::-1].copy()[::-1],
    "mapped": _mapped,
    "read-only": _read_only,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_of_any_layout_are_fed_alike(layout: str, tmp_path: Path) -> None:
    model = load(chain("m = Relu (h)"))
    model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    given = LAYOUTS[layout](PLAIN, tmp_path)
    before = given.copy()
    feeds = samples(model, given).read(np.arange(6)).feeds["x"]
    assert feeds.dtype == np.dtype(np.float32)
    assert feeds.dtype.isnative
    np.testing.assert_array_equal(feeds, PLAIN)
    np.testing.assert_array_equal(given, before)


def test_plans_from_samples_of_any_layout_are_equal(tmp_path: Path) -> None:
    model = load(chain("m = Relu (h)"))
    model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    many = np.random.default_rng(1).standard_normal((64, 3, 6, 6)).astype(np.float32)
    options = api.SolveOptions(criterion="reconstruct", round_to=1)
    plans = [
        api.solve(model, flops=0.6, options=options, data=samples(model, change(many, tmp_path)))
        for change in (lambda array, _: array, LAYOUTS["big-endian"], LAYOUTS["fortran"])
    ]
    assert plans[0].groups == plans[1].groups == plans[2].groups
