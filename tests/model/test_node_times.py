# SPDX-License-Identifier: Apache-2.0
"""Shares of time are those of one run, by node; a model that does not run has none."""

from __future__ import annotations

import pytest
from tiny_models import chain, model

from graphprune.model import node_times
from graphprune.model.load import load
from graphprune.model.node_times import time_shares

NET = chain("c = Conv <pads = [1, 1, 1, 1]> (h, middle)\n m = Relu (c)", {"middle": (8, 8, 3, 3)})
SIZES = {"x": (2, 3, 6, 6)}


def test_all_nodes_together_are_the_whole() -> None:
    labels = {node.name or node.output[0] for node in NET.graph.node}
    shares = time_shares(load(NET), SIZES, {}, labels)
    assert set(shares) == labels
    assert sum(shares.values()) == pytest.approx(1)


def test_a_length_is_told() -> None:
    proto = model("(int64[n] x) => (float[] y) { y = Gather (table, x) }", {"table": (5, 2)})
    assert time_shares(load(proto), {"x": (3,)}, {"x": 4}, ["y"]) == {"y": 1.0}
    assert time_shares(load(proto), {"x": (3,)}, {"x": 5}, ["y"]) == {}, "no such row"


def test_what_is_large_is_not_run_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_times, "main_memory", lambda: 1000)
    assert time_shares(load(NET), SIZES, {}, ["m"]) == {}
