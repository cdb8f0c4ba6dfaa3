# SPDX-License-Identifier: Apache-2.0
"""The public names: sorted, importable, documented, and imported lazily."""

from __future__ import annotations

import importlib

import pytest

import graphprune


def test_all_is_sorted_and_complete() -> None:
    assert graphprune.__all__ == sorted(graphprune.__all__)
    assert set(graphprune.__all__) <= set(dir(graphprune))


@pytest.mark.parametrize("name", graphprune.__all__)
def test_every_name_is_importable_and_documented(name: str) -> None:
    value = getattr(importlib.reload(graphprune), name)
    if name != "__version__":
        assert callable(value)
        assert value.__doc__
        assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        _ = graphprune.prune_everything
