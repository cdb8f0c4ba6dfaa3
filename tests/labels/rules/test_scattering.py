# SPDX-License-Identifier: Apache-2.0
"""Rules of the scatter family, and of gathering with an index for every element."""

from __future__ import annotations

import numpy as np
from oracle_check import analyze, check, run
from rule_cases import BOTH, Case, Stays, rule_tests
from tiny_models import chain, model


def _grid(*lines: list[int]) -> np.ndarray:
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).astype(np.int64)


PAIR = "g = Conv (x, second) "
SECOND = {"second": (8, 3, 1, 1)}
THREE = "first.0 out, second.0 out, last.1 in"
ALL = [[0, 1], list(range(8)), [1, 2, 3], [0, 5]]

CASES = [
    Case(
        "grid",
        chain(
            PAIR + "u = Slice (g, start, to, axes) m = ScatterND (h, i, u)",
            SECOND,
            i=_grid(*ALL),
            start=[0, 0],
            to=[3, 2],
            axes=[2, 3],
        ),
        {"h": (8, THREE)},
    ),
    Case(
        "grid-of-constants",
        chain("m = ScatterND (h, i, u)", {"u": (2, 8, 3, 2)}, i=_grid(*ALL)),
        {"h": (8, BOTH + ", u.1 per_channel")},
    ),
    Case(
        "into-a-constant",
        chain(
            "m = ScatterND (z, i, h)",
            {"z": (2, 10, 6, 6)},
            after=10,
            i=_grid([0, 1], [9, 1, 2, 3, 4, 5, 6, 7], list(range(6)), list(range(6))),
        ),
        {"h": (8, BOTH + ", z.1 per_channel")},
    ),
    Case("later-axes", chain(PAIR + "m = ScatterND (h, i, g)", SECOND, i=[[1], [0]]), {"h": (8, THREE)}),
    Case(
        "added",
        chain(PAIR + 'm = ScatterND <reduction = "add"> (h, i, g)', SECOND, opset=18, i=[[1], [0]]),
        {"h": (8, THREE)},
    ),
    Case(
        "elements",
        chain(
            PAIR + "m = ScatterElements <axis = 2> (h, i, g)",
            SECOND,
            i=np.random.default_rng(0).integers(0, 6, (2, 8, 6, 6)),
        ),
        {"h": (8, THREE + ", i.1 per_channel")},
    ),
    Case(
        "gather-elements",
        chain("m = GatherElements <axis = 3> (h, i)", i=np.random.default_rng(0).integers(0, 6, (2, 8, 6, 4))),
        {"h": (8, BOTH + ", i.1 per_channel")},
    ),
    Case("gather-nd", chain("m = GatherND (h, i)", i=[[1], [0], [1]])),
    Case(
        "gather-nd-in-step",
        chain(
            "t = Transpose <perm=[0,2,1,3]> (h) s = GatherND <batch_dims=1> (t, i) m = Transpose <perm=[0,2,1,3]> (s)",
            i=np.random.default_rng(0).integers(0, 6, (2, 3, 1)),
        ),
    ),
]

STAYS = [
    Stays(
        "twice-at-one-place",
        chain(
            "t = Transpose <perm = [1, 0, 2, 3]> (h) s = ScatterND (z, i, t) m = Identity (s)",
            {"z": (3, 2, 6, 6)},
            after=2,
            i=np.asarray([[0], [0], [1], [1], [2], [2], [0], [1]]),
        ),
        ("ScatterND", "s"),
    ),
    Stays(
        "into-a-constant-at-single-elements",
        chain(
            "p = GlobalAveragePool (h) f = Reshape (p, flat) s = ScatterND (z, i, f) m = Reshape (s, square)",
            {"z": (2, 16)},
            after=4,
            flat=[16],
            i=np.stack([np.arange(16) % 2, np.arange(16)], axis=-1),
            square=[2, 4, 2, 2],
        ),
        ("ScatterND", "s"),
        ("f", 0),
    ),
    Stays(
        "no-grid",
        chain(
            PAIR + "u = Slice (g, zero, one, zero) v = Squeeze (u, zero) m = ScatterND (h, i, u)",
            SECOND,
            i=np.concatenate(
                [
                    _grid([0], list(range(8)), list(range(6)), list(range(6)))[..., :3],
                    np.random.default_rng(0).integers(0, 6, (1, 8, 6, 6, 1)),
                ],
                axis=-1,
            ),
            zero=[0],
            one=[1],
        ),
        ("ScatterND", "m"),
    ),
    Stays(
        "elements-along-channels",
        chain(PAIR + "m = ScatterElements <axis = 1> (h, i, g)", SECOND, i=np.zeros((2, 8, 6, 6), dtype=np.int64)),
        ("ScatterElements", "m"),
    ),
    Stays(
        "gather-along-channels",
        chain("m = GatherElements <axis = 1> (h, i)", i=np.zeros((2, 8, 6, 6), dtype=np.int64)),
        ("GatherElements", "m"),
    ),
    Stays(
        "gather-nd-channels",
        chain("t = GatherND (h, i) m = Unsqueeze (t, at)", i=[[0, 1], [1, 4]], at=[2], after=6),
        ("GatherND", "t"),
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


def test_a_grid_of_some_channels_makes_two_groups() -> None:
    every = list(range(6))
    outcome = check(
        chain(PAIR + "m = ScatterND (h, i, g)", {"second": (3, 3, 1, 1)}, i=_grid([0, 1], [6, 1, 4], every, every))
    )
    assert sorted(group.size for group in outcome.analysis.groups) == [3, 5]
    assert outcome.effect > 1e-3


def test_a_grid_that_follows_shapes_stays_open() -> None:
    text = """(float[N,3,6] x) => (float[] y) {
        h = Conv (x, first)
        g = Conv (x, second)
        u = Slice (g, to, start, two)
        s = Shape (h)
        n = Gather (s, zero)
        c = Gather (s, one)
        rows = Range (zero, n, one)
        columns = Range (zero, c, one)
        a = Unsqueeze (rows, at12)
        b = Unsqueeze (columns, at02)
        d = Unsqueeze (places, at01)
        n1 = Unsqueeze (n, at0)
        c1 = Unsqueeze (c, at0)
        size = Concat <axis = 0> (n1, c1, three)
        a1 = Expand (a, size)
        b1 = Expand (b, size)
        d1 = Expand (d, size)
        a2 = Unsqueeze (a1, at3)
        b2 = Unsqueeze (b1, at3)
        d2 = Unsqueeze (d1, at3)
        i = Concat <axis = 3> (a2, b2, d2)
        m = ScatterND (h, i, u)
        y = Conv (m, last)
    }"""
    proto = model(
        text,
        {"first": (8, 3, 1), "second": (8, 3, 1), "last": (2, 8, 1)},
        zero=np.asarray(0),
        one=np.asarray(1),
        start=[3],
        to=[0],
        two=[2],
        three=[3],
        places=[1, 3, 4],
        at0=[0],
        at3=[3],
        at01=[0, 1],
        at02=[0, 2],
        at12=[1, 2],
    )
    analysis = analyze(proto, x=(1, 3, 6))
    assert [group.size for group in analysis.groups] == [8]
    pruned = check(analysis).pruned
    assert run(pruned, {"x": np.ones((4, 3, 6), dtype=np.float32)}, ["y"])["y"].shape == (4, 2, 6)
