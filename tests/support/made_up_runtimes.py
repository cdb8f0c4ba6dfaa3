# SPDX-License-Identifier: Apache-2.0
"""Runtimes of another package, made up: where they are found, by child processes too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from graphprune.export.runtime import RUNTIMES

__all__ = ["offer_runtimes"]


def offer_runtimes(place: Path, monkeypatch: pytest.MonkeyPatch, source: str, classes: Sequence[str]) -> None:
    """Install a package ``toys`` with these classes as runtimes, each under its name in small letters."""
    site = place / "site"
    info = site / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "toys.py").write_text(source)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    lines = [f"{name.lower()} = toys:{name}" for name in classes]
    (info / "entry_points.txt").write_text("\n".join(["[graphprune.runtimes]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.delitem(sys.modules, "toys", raising=False)
    RUNTIMES.names()
    monkeypatch.setattr(RUNTIMES, "_methods", dict(RUNTIMES._methods))  # what is loaded here is forgotten again
