# SPDX-License-Identifier: Apache-2.0
"""Kernel blocks: groups of a convolution that are whole blocks of a kernel stay so, or stay whole."""

from __future__ import annotations

import pytest
from tiny_models import model

from graphprune.analysis.analysis import Analysis
from graphprune.choices import Grouped
from graphprune.model.load import load
from graphprune.planning.constraints.bounds import Bounds, WidthRules
from graphprune.planning.constraints.kernel_blocks import kernel_steps

PARTS = 4


def analysed(inputs: int, outputs: int, grouped: Grouped = "auto") -> Analysis:
    """Analyse a convolution of four groups with so many channels each, between two plain ones."""
    text = f"""(float[1,3,6,6] x) => (float[] y) {{
        h = Conv (x, first)
        c = Conv <group = {PARTS}> (h, middle)
        y = Conv (c, last)
    }}"""
    weights = {
        "first": (PARTS * inputs, 3, 1, 1),
        "middle": (PARTS * outputs, inputs, 1, 1),
        "last": (2, PARTS * outputs, 1, 1),
    }
    return Analysis(load(model(text, weights)), grouped=grouped)


@pytest.mark.parametrize(
    ("inputs", "outputs", "block", "steps"),
    [
        (8, 16, 8, [8, 8]),
        (16, 16, 8, [8, 8]),
        (16, 8, 16, [1, 1]),  # half a block of outputs is run elsewhere, whatever is read
        (12, 16, 16, [1, 1]),
        (4, 6, 8, [1, 1]),
    ],
)
def test_groups_keep_whole_blocks_where_they_have_them(inputs: int, outputs: int, block: int, steps: list[int]) -> None:
    analysis = analysed(inputs, outputs)
    assert [group.size for group in analysis.groups] == [inputs, outputs]
    assert kernel_steps(analysis, block).tolist() == steps


def test_a_depthwise_convolution_has_no_blocks_of_its_own() -> None:
    assert kernel_steps(analysed(1, 16), 16).tolist() == [1] * len(analysed(1, 16).groups)


@pytest.mark.parametrize("round_to", ["avx2", "avx512", "neon"])
def test_kinds_of_onnxruntime_heed_blocks(round_to: str) -> None:
    first, second = Bounds(analysed(16, 32), WidthRules(round_to)).levels()
    block = 8 if round_to == "avx2" else 16
    assert first.tolist() == list(range(block, 17, block))
    assert second.tolist() == list(range(block, 33, block))
    relaxed = Bounds(analysed(16, 32), WidthRules(round_to)).levels(relaxed=True)
    assert relaxed[1].tolist()[:block] == list(range(1, block + 1))


@pytest.mark.parametrize("round_to", [4, "mnn", "cuda", "openvino"])
def test_numbers_and_other_runtimes_do_not(round_to: int | str) -> None:
    assert 4 in Bounds(analysed(16, 32), WidthRules(round_to)).levels()[1]
