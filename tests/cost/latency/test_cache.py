# SPDX-License-Identifier: Apache-2.0
"""The cache of measured times: what was stored first stays, and what cannot be read is measured anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from graphprune.cost.latency.cache import Cache, cache_folder
from graphprune.cost.latency.environment import Environment

if TYPE_CHECKING:
    from pathlib import Path

HERE = Environment("onnxruntime", "1.31.1", "CPUExecutionProvider", 1, "a processor")


def test_what_is_stored_is_found_again(tmp_path: Path) -> None:
    cache = Cache(HERE, tmp_path)
    cache.kernels["conv"], cache.models["net"], cache.ratios["net/plan"] = 10, 20, 30
    assert cache.save()
    again = Cache(HERE, tmp_path)
    assert (again.kernels, again.models, again.ratios) == ({"conv": 10}, {"net": 20}, {"net/plan": 30})


def test_of_two_processes_the_first_wins(tmp_path: Path) -> None:
    one, other = Cache(HERE, tmp_path), Cache(HERE, tmp_path)
    one.kernels["conv"], other.kernels["conv"], other.kernels["gemm"] = 10, 11, 12
    assert one.save()
    assert other.save()
    assert other.kernels == Cache(HERE, tmp_path).kernels == {"conv": 10, "gemm": 12}


def test_times_of_other_threads_are_others(tmp_path: Path) -> None:
    cache = Cache(HERE, tmp_path)
    cache.kernels["conv"] = 10
    cache.save()
    assert not Cache(Environment("onnxruntime", "1.31.1", "CPUExecutionProvider", 4, "a processor"), tmp_path).kernels


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": "another"}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    cache = Cache(HERE, tmp_path)
    cache.path.parent.mkdir(exist_ok=True)
    cache.path.write_bytes(content)
    fresh = Cache(HERE, tmp_path)
    assert not fresh.kernels
    fresh.kernels["conv"] = 5
    assert fresh.save()
    assert Cache(HERE, tmp_path).kernels == {"conv": 5}


def test_entries_that_are_no_times_are_left_out(tmp_path: Path) -> None:
    cache = Cache(HERE, tmp_path)
    cache.kernels.update({"conv": 7})
    cache.save()
    text = cache.path.read_text("utf-8").replace('"conv": 7', '"a": -1, "b": true, "c": 1.5, "d": "9", "conv": 7')
    cache.path.write_text(text, "utf-8")
    assert Cache(HERE, tmp_path).kernels == {"conv": 7}


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert not Cache(HERE, tmp_path / "file" / "folder").save()


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHPRUNE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("GRAPHPRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "graphprune"
