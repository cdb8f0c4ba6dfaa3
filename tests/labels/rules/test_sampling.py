# SPDX-License-Identifier: Apache-2.0
"""Rules of sampling, of regions, of columns, and of convolutions of a special kind."""

from __future__ import annotations

import numpy as np
from oracle_check import analyze
from rule_cases import BOTH, Case, Stays, groups, rule_tests
from tiny_models import chain, model

RANDOM = np.random.default_rng(3)
ROIS = np.asarray([[0, 0, 4, 4], [1, 1, 5, 5], [0, 2, 3, 5]], dtype=np.float32)
IMAGES = np.asarray([0, 1, 1])
OFFSETS = (2, 18, 6, 6)

CASES = [
    Case(
        "affine-grid-like-an-activation",
        chain("s = Shape (h) g = AffineGrid (turns, s) m = GridSample (h, g)", {"turns": (2, 2, 3)}, opset=20),
    ),
    Case(
        "grid-sample",
        chain("m = GridSample (h, g)", g=RANDOM.uniform(-1, 1, (2, 3, 4, 2)).astype(np.float32)),
    ),
    Case(
        "grid-sample-20",
        chain(
            'm = GridSample <mode = "linear"> (h, g)',
            opset=20,
            g=RANDOM.uniform(-1, 1, (2, 3, 4, 2)).astype(np.float32),
        ),
    ),
    Case("roi-align", chain("m = RoiAlign <output_height = 2, output_width = 2> (h, roi, of)", roi=ROIS, of=IMAGES)),
    Case(
        "roi-align-10",
        chain("m = RoiAlign <output_height = 2, output_width = 2> (h, roi, of)", opset=10, roi=ROIS, of=IMAGES),
    ),
    Case("max-roi-pool", chain("m = MaxRoiPool <pooled_shape = [2, 2]> (h, five)", five=np.insert(ROIS, 0, 0, axis=1))),
    Case(
        "columns",
        chain(
            "f = Reshape (h, flat) c = Col2Im <strides = [2, 2]> (f, image, block) m = Identity (c)",
            opset=18,
            width=12,
            after=3,
            flat=[2, 12, 36],
            image=[12, 12],
            block=[2, 2],
        ),
        {"h": (3, BOTH)},
    ),
    Case(
        "deformed",
        chain(
            "m = DeformConv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (h, w, o, b)",
            {"w": (5, 8, 3, 3), "b": (5,), "o": OFFSETS},
            after=5,
            opset=19,
        ),
        {"h": (8, "first.0 out, w.1 in"), "m": (5, "w.0 out, b.0 per_channel, last.1 in")},
    ),
    Case(
        "deformed-groups",
        chain(
            "m = DeformConv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 8> (h, w, o, , s)",
            {"w": (8, 1, 3, 3), "o": OFFSETS, "s": (2, 9, 6, 6)},
            opset=19,
        ),
        {"h": (8, BOTH + ", w.0 per_channel")},
    ),
]

STAYS = [
    Stays(
        "offset-groups",
        chain(
            "m = DeformConv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], offset_group = 2> (h, w, o)",
            {"w": (5, 8, 3, 3), "o": (2, 36, 6, 6)},
            after=5,
            opset=19,
        ),
        ("DeformConv", "m"),
        groups={"m": (5, "w.0 out, last.1 in")},
    ),
    Stays(
        "places",
        chain(
            "t = Transpose <perm=[0,2,3,1]> (h) g = Tanh (t) s = GridSample (x, g) m = Identity (s)",
            width=2,
            after=3,
        ),
        ("GridSample", "s"),
    ),
    Stays(
        "regions",
        chain(
            "t = Transpose <perm=[1,0,2,3]> (h) a = RoiAlign (t, roi, of) m = Identity (a)",
            after=2,
            roi=ROIS,
            of=IMAGES,
        ),
        ("RoiAlign", "a"),
    ),
    Stays(
        "matrices",
        chain(
            "p = GlobalAveragePool (h) t = Reshape (p, two) g = AffineGrid (t, size) m = GridSample (x, g)",
            width=6,
            after=3,
            opset=20,
            two=[2, 2, 3],
            size=[2, 3, 4, 4],
        ),
        ("AffineGrid", "g"),
        ("t", 1),
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


def test_causal_convolutions_pass_channels() -> None:
    text = """(float[2,3,6] x) => (float[] y, float[] s) {
        h = Conv (x, first)
        m, s = CausalConvWithState (h, w, b)
        y = Conv (m, last)
    }"""
    shapes = {"first": (8, 3, 1), "w": (8, 1, 4), "b": (8,), "last": (2, 8, 1)}
    open_state = model(text.replace(", float[] s", ""), shapes, opset=27)
    assert groups(analyze(open_state)) == {
        "h": (8, frozenset({"first.0 out", "w.0 per_channel", "b.0 per_channel", "last.1 in"}))
    }
    assert not groups(analyze(model(text, shapes, opset=27)))
