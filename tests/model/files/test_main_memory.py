# SPDX-License-Identifier: Apache-2.0
"""Memory is what the machine has, or less where a container has less."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from graphprune.model.files import main_memory as module
from graphprune.model.files.main_memory import main_memory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("said", "allowed"), [("1048576\n", 1 << 20), ("max\n", None), ("0\n", None), ("\n", None)])
def test_a_container_has_what_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, allowed: int | None
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(said, encoding="ascii")
    monkeypatch.setattr(module, "_LIMITS", (str(tmp_path / "missing"),))
    machine = main_memory()
    monkeypatch.setattr(module, "_LIMITS", (str(tmp_path / "missing"), str(limit)))
    assert main_memory() == (machine if allowed is None else allowed)
