# SPDX-License-Identifier: Apache-2.0
"""The chart of a plan: a bar per layer on linear axes, equal bytes, names that are only text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from recovery_models import block

import graphprune
from graphprune.errors import OutputError, UsageError
from graphprune.report.widths_chart import save_widths, widths_chart

if TYPE_CHECKING:
    from graphprune.plan.schema import Plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    return graphprune.solve(graphprune.load(block(norm=True)), flops=0.5)


def test_every_layer_has_its_name_and_both_bars(plan: Plan) -> None:
    drawn = widths_chart(plan).decode()
    ElementTree.fromstring(drawn)  # noqa: S314  made here
    for layer in plan.layers:
        assert layer.node in drawn
    for word in ("original", "pruned", "output channels", "FLOPs"):
        assert word in drawn
    for color in ("#c9d3df", "#2f6fb0"):
        assert len(re.findall(color, drawn)) >= 2 * len(plan.layers)


def test_equal_plans_give_equal_bytes(plan: Plan) -> None:
    for kind in ("svg", "png"):
        assert widths_chart(plan, kind) == widths_chart(plan, kind)
    assert widths_chart(plan, "png").startswith(b"\x89PNG")


def test_names_are_no_markup(plan: Plan) -> None:
    layers = (replace(plan.layers[0], node="<script>$x_1$&\x1b[31m"), *plan.layers[1:])
    drawn = widths_chart(replace(plan, layers=layers)).decode()
    assert "<script" not in drawn and "\x1b" not in drawn
    ElementTree.fromstring(drawn)  # noqa: S314  made here


def test_a_thousand_layers_are_drawn(plan: Plan) -> None:
    assert len(widths_chart(replace(plan, layers=plan.layers[:1] * 1000))) > 1000


def test_other_endings_and_files_that_exist_are_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        save_widths(plan, tmp_path / "widths.dot")
    save_widths(plan, tmp_path / "widths.svg")
    with pytest.raises(OutputError, match="exists"):
        save_widths(plan, tmp_path / "widths.svg")
    save_widths(plan, tmp_path / "widths.svg", force=True)
