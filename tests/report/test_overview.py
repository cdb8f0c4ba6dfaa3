# SPDX-License-Identifier: Apache-2.0
"""The overview of a model: which it is, and what of it costs too much to say."""

from __future__ import annotations

import pytest
from rich.console import Console
from tiny_models import chain

import graphprune
from graphprune.model.load import Model
from graphprune.report import overview


def shown(analysis: graphprune.Analysis) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(overview.model_tables(analysis))
    return capture.get()


def test_the_size_of_much_data_stands_for_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = graphprune.analyze(graphprune.load(chain("m = Relu (h)")))
    assert f"sha256 {analysis.model.sha256[:12]}" in shown(analysis)
    monkeypatch.setattr(overview, "_MUCH", 10)
    monkeypatch.setattr(Model, "sha256", property(lambda model: pytest.fail("everything is read")))
    assert "B with its data" in shown(analysis)
