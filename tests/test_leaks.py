# SPDX-License-Identifier: Apache-2.0
"""What a run made is freed with it: nothing in the library remembers models that nobody asks for any more."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import cycle, islice

from inheritance_cases import twins
from tiny_models import model

import graphprune
from graphprune import BudgetRequest, SolveOptions
from graphprune.analysis.analysis import Analysis
from graphprune.report.summary import count_totals

NETWORK = """
(float[n,3,6,6] x) => (float[n,2] y) {
    a = Conv (x, stem)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, inner)
    d = Relu (c)
    e = Conv (d, outer)
    f = Add (e, b)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    y = Gemm (h, head)
}
"""
WEIGHTS = {"stem": (16, 3, 1, 1), "inner": (24, 16, 3, 3), "outer": (16, 24, 1, 1), "head": (16, 2)}
RUNS: tuple[tuple[tuple[BudgetRequest, ...], SolveOptions], ...] = (
    ((BudgetRequest("flops", 0.5),), SolveOptions()),
    ((BudgetRequest("size", 0.6), BudgetRequest("memory", 0.9)), SolveOptions(round_to=1)),
    ((BudgetRequest("flops", 0.6),), SolveOptions(inherit="merge", criterion="l1")),
    ((BudgetRequest("flops", 0.2),), SolveOptions(allow_empty=True, round_to=1)),
    ((), SolveOptions(lossless=True)),
)
SOLVES = 50
SPARE = 500_000
"""Bytes by which the pools of interpreter and libraries may grow; fifty analyses take many times as much."""


def analyses() -> int:
    gc.collect()
    return sum(type(held) is Analysis for held in gc.get_objects())  # isinstance would ask lazy objects of libraries


def solve(budgets: tuple[BudgetRequest, ...], options: SolveOptions) -> None:
    """Go the whole way of `graphprune solve` but for running the models."""
    analysis = graphprune.analyze(graphprune.load(twins(model(NETWORK, WEIGHTS), 1, (0, 5))))
    reconciled = graphprune.reconcile(analysis, graphprune.solve(analysis, budgets, options))
    pruned = graphprune.apply(analysis, reconciled)
    assert count_totals(reconciled.reference, reconciled.plan, pruned)["flops"].ratio < 1


def test_no_solve_leaves_anything_behind() -> None:
    for run in RUNS:
        solve(*run)  # imports, tables of the libraries
    before = analyses()
    tracemalloc.start()
    try:
        for run in RUNS:
            solve(*run)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        for run in islice(cycle(RUNS), SOLVES):
            solve(*run)
        assert analyses() == before
        assert tracemalloc.get_traced_memory()[0] - taken < SPARE
    finally:
        tracemalloc.stop()
