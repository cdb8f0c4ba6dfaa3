# SPDX-License-Identifier: Apache-2.0
"""A pipe in the place of a file is refused at once: nobody waits for somebody who writes, and the message says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_files import small_model

from graphprune.cli.recipes.recipe import read_recipe
from graphprune.data.open_source import open_source
from graphprune.data.signature import input_specs
from graphprune.errors import InputError
from graphprune.model.load import load
from graphprune.plan.file import read_plan
from graphprune.planning.constraints.widths_file import read_widths

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")


def _open_samples(path: Path) -> object:
    return open_source(str(path), input_specs(load(small_model())))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("model.onnx", load),
        ("samples.npy", _open_samples),
        ("samples.npz", _open_samples),
        ("samples", _open_samples),
        ("a.plan.json", read_plan),
        ("widths.json", read_widths),
        ("widths.yaml", read_widths),
        ("recipe.yaml", read_recipe),
    ],
)
def test_a_pipe_is_said_to_be_one(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=r"is a pipe.*only regular files are read") as refused:
        read(tmp_path / name)
    assert refused.value.hint == "write what comes out of it to a file, and give that"


def test_what_was_meant_is_a_file(tmp_path: Path) -> None:
    """A pipe of this name is there; it is not what was meant."""
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(InputError) as refused:
        load(tmp_path / "modle.onnx")
    assert refused.value.hint is None
