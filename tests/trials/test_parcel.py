# SPDX-License-Identifier: Apache-2.0
"""Parcels: a worker takes the files that are there, unpacks those that were sent, and says which it has not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import onnx
import pytest
from tiny_models import model as tiny

import graphprune
from graphprune.errors import DataError
from graphprune.trials import parcel as module
from graphprune.trials.parcel import Parcel

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """
(float[n, 4] x) => (float[n, 4] y) { h = MatMul(x, w) y = MatMul(h, w) }
"""
WEIGHTS = {"w": (4, 4)}


def far(parcel: Parcel) -> Parcel:
    """Return what arrives in another process."""
    return copy.deepcopy(parcel)


def test_what_is_there_is_taken_and_what_differs_is_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "1.png").write_bytes(b"one")
    (folder / "2.png").write_bytes(b"second")
    sent = far(Parcel.of(folder, sent=True))
    assert sent.opened(tmp_path / "unused") == folder and not (tmp_path / "unused").exists()
    (folder / "2.png").write_bytes(b"another, longer one")
    place = sent.opened(tmp_path / "here")
    assert place == tmp_path / "here" / "photos"
    assert {file.name: file.read_bytes() for file in place.rglob("*.png")} == {"1.png": b"one", "2.png": b"second"}


def test_what_is_neither_there_nor_sent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = tmp_path / "samples.npz"
    samples.write_bytes(b"0123456789")
    monkeypatch.setattr(module, "_MOST", 9)
    parcels = [Parcel.of(samples, sent=False), Parcel.of(samples, sent=True)]
    samples.unlink()
    for parcel in parcels:
        assert not parcel.contents
        with pytest.raises(DataError, match=r"a worker on .* has no .*samples\.npz"):
            far(parcel).opened(tmp_path / "here")


@pytest.mark.parametrize("outside", [False, True])
def test_a_model_travels_with_its_external_data(tmp_path: Path, *, outside: bool) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    onnx.save(
        tiny(TEXT, WEIGHTS), origin / "net.onnx", save_as_external_data=outside, location="net.data", size_threshold=0
    )
    model = graphprune.load(origin / "net.onnx")
    sent, digest = far(Parcel.of_model(model, sent=True)), model.sha256
    origin.rename(tmp_path / "gone")
    place = sent.opened(tmp_path / "here")
    assert graphprune.load(place).sha256 == digest


def test_a_model_in_memory_always_travels(tmp_path: Path) -> None:
    sent = far(Parcel.of_model(graphprune.load(tiny(TEXT, WEIGHTS)), sent=False))
    assert len(graphprune.load(sent.opened(tmp_path)).proto.graph.node) == 2
