# SPDX-License-Identifier: Apache-2.0
"""Legal graphs with a trap in each: what is pruned equals the masked original, and what must stay does.

Rules have tests of their own beside them (`tests/labels/rules`); here is one graph for every trap that a reader of
ONNX's specification would think of, in the order of a list of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from oracle_check import analyze, check
from tiny_models import chain, model

SAME = "pads = [1, 1, 1, 1]"


@dataclass(frozen=True)
class Trap:
    """A graph between two convolutions, and how many atoms its groups have, in ascending order."""

    middle: str
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    groups: tuple[int, ...] = (8,)


def traps(row: str, *entries: tuple[str, Trap]) -> list[Any]:
    """Return the traps of a row, named after it."""
    return [pytest.param(trap, id=f"{row}-{name}") for name, trap in entries]


GROUPED = traps(
    "grouped",
    (
        "convolution",
        Trap(f"m = Conv <group = 4, {SAME}> (h, w)", {"w": (8, 2, 3, 3)}, groups=(4,)),
    ),
    ("depthwise", Trap(f"m = Conv <group = 8, {SAME}> (h, w)", {"w": (8, 1, 3, 3)})),
    (
        "multiplier",
        Trap(
            f"d = Conv <group = 8, {SAME}> (h, w)\n m = Conv (d, v)",
            {"w": (16, 1, 3, 3), "v": (8, 16, 1, 1)},
            groups=(
                8,
                8,
            ),
        ),
    ),
    (
        "transposed",
        Trap(f"m = ConvTranspose <group = 4, {SAME}> (h, w)", {"w": (8, 2, 3, 3)}, groups=(4,)),
    ),
)
JOINED = traps(
    "joined",
    (
        "on-channels",
        Trap(
            "c = Concat <axis = 1> (h, x)\n m = Conv (c, w)",
            {"w": (8, 11, 1, 1)},
            groups=(
                8,
                8,
            ),
        ),
    ),
    ("on-rows", Trap("m = Concat <axis = 2> (h, h)")),
    (
        "uneven-split",
        Trap(
            "u, v = Split <axis = 1> (h, sizes)\n m = Concat <axis = 1> (v, u)",
            constants={"sizes": [3, 5]},
            groups=(
                3,
                5,
            ),
        ),
    ),
    ("even-split", Trap("u, v = Split <axis = 1> (h)\n m = Concat <axis = 1> (u, v)", groups=(4, 4))),
)
RESHAPED = traps(
    "reshaped",
    (
        "literal-count",
        Trap("r = Reshape (h, to)\n m = Reshape (r, back)", constants={"to": [0, 8, 36], "back": [0, 8, 6, 6]}),
    ),
    (
        "minus-one",
        Trap("r = Reshape (h, to)\n m = Reshape (r, back)", constants={"to": [0, -1, 36], "back": [0, -1, 6, 6]}),
    ),
    (
        "computed",
        Trap(
            "s = Shape (h)\n n = Gather (s, zero)\n t = Concat <axis = 0> (n, rest)\n "
            "r = Reshape (h, t)\n m = Reshape (r, back)",
            constants={"zero": [0], "rest": [8, 36], "back": [0, 8, 6, 6]},
        ),
    ),
    (
        "flattened",
        Trap(
            "f = Flatten (h)\n g = MatMul (f, w)\n m = Reshape (g, to)",
            {"w": (288, 8)},
            {"to": [0, 8, 1, 1]},
            groups=(8, 8),
        ),
    ),
)
MOVED = traps(
    "moved",
    (
        "channels-last",
        Trap("t = Transpose <perm = [0, 2, 3, 1]> (h)\n r = Relu (t)\n m = Transpose <perm = [0, 3, 1, 2]> (r)"),
    ),
    ("unsqueezed", Trap("u = Unsqueeze (h, at)\n r = Relu (u)\n m = Squeeze (r, at)", constants={"at": [1]})),
    ("expanded", Trap("g = GlobalAveragePool (h)\n m = Expand (g, to)", constants={"to": [2, 8, 6, 6]})),
    ("tiled-rows", Trap("m = Tile (h, times)", constants={"times": [1, 1, 2, 1]})),
    (
        "tiled-channels",
        Trap("t = Tile (h, times)\n m = Conv (t, w)", {"w": (8, 16, 1, 1)}, {"times": [1, 2, 1, 1]}, (8, 8)),
    ),
    (
        "depth-to-space",
        Trap(
            "d = DepthToSpace <blocksize = 2> (h)\n m = Conv (d, w)",
            {"w": (8, 2, 1, 1)},
            groups=(
                2,
                8,
            ),
        ),
    ),
    (
        "space-to-depth",
        Trap(
            "d = SpaceToDepth <blocksize = 2> (h)\n m = Conv (d, w)",
            {"w": (8, 32, 1, 1)},
            groups=(
                8,
                8,
            ),
        ),
    ),
)
CHOSEN = traps(
    "chosen",
    (
        "sliced",
        Trap(
            "s = Slice (h, from, to, at)\n m = Conv (s, w)",
            {"w": (8, 4, 1, 1)},
            {"from": [2], "to": [6], "at": [1]},
            groups=(4, 4, 8),
        ),
    ),
    (
        "gathered",
        Trap(
            "s = Gather <axis = 1> (h, which)\n m = Conv (s, w)",
            {"w": (8, 3, 1, 1)},
            {"which": [5, 0, 5]},
            groups=(6, 8),
        ),
    ),
    (
        "padded-with-ones",
        Trap(
            "p = Pad (h, by, one)\n m = Conv (p, w)",
            {"w": (8, 10, 1, 1)},
            {"by": [0, 1, 0, 0, 0, 1, 0, 0], "one": np.float32(1)},
            groups=(2, 8, 8),
        ),
    ),
    ("resized-to-sizes", Trap("m = Resize (h, , , to)", constants={"to": [2, 8, 16, 16]})),
    ("sorted", Trap("m, which = TopK <axis = 1> (h, k)", constants={"k": [8]}, groups=())),
    ("scattered", Trap("m = ScatterND (h, where, w)", {"w": (1, 8, 6, 6)}, {"where": [[0]]})),
)
SUMMED = traps(
    "summed",
    ("softmax", Trap("m = Softmax <axis = 1> (h)", groups=())),
    (
        "mean",
        Trap("r = ReduceMean <axes = [1]> (h)\n m = Expand (r, to)", constants={"to": [2, 8, 6, 6]}, groups=(8, 8)),
    ),
    ("lp", Trap("m = LpNormalization <axis = 1> (h)", groups=())),
    ("layer-normalisation", Trap("m = LayerNormalization <axis = 1> (h, w)", {"w": (8, 6, 6)}, groups=())),
    ("instances", Trap("m = InstanceNormalization (h, w, v)", {"w": (8,), "v": (8,)})),
    ("lrn", Trap("m = LRN <size = 3> (h)", groups=())),
    (
        "einsum",
        Trap(
            'm = Einsum <equation = "bchw,ck->bkhw"> (h, w)',
            {"w": (8, 8)},
            groups=(
                8,
                8,
            ),
        ),
    ),
)
BROADCAST = traps(
    "broadcast",
    ("per-channel", Trap("m = Mul (h, w)", {"w": (8, 1, 1)})),
    ("with-a-batch", Trap("m = Mul (h, w)", {"w": (1, 8, 1, 1)})),
    ("of-one", Trap("m = Mul (h, w)", {"w": (1,)})),
    ("scalar", Trap("m = Mul (h, w)", {"w": ()})),
    ("per-column", Trap("m = Mul (h, w)", {"w": (6,)})),
)
PRODUCTS = traps(
    "products",
    ("slope-per-channel", Trap("m = PRelu (h, w)", {"w": (8, 1, 1)})),
    ("one-slope", Trap("m = PRelu (h, w)", {"w": (1,)})),
    (
        "gemm-transposed-both",
        Trap(
            "g = GlobalAveragePool (h)\n f = Flatten (g)\n t = Transpose (f)\n "
            "k = Gemm <transA = 1, transB = 1, alpha = 0.5, beta = 2.0> (t, w, v)\n "
            "m = Reshape (k, to)",
            {"w": (8, 8), "v": (1, 8)},
            {"to": [0, 8, 1, 1]},
            (8, 8),
        ),
    ),
    (
        "gemm-scalar-bias",
        Trap(
            "g = GlobalAveragePool (h)\n f = Flatten (g)\n k = Gemm (f, w, v)\n m = Reshape (k, to)",
            {"w": (8, 8), "v": ()},
            {"to": [0, 8, 1, 1]},
            (8, 8),
        ),
    ),
    (
        "gemm-without-bias",
        Trap(
            "g = GlobalAveragePool (h)\n f = Flatten (g)\n k = Gemm (f, w)\n m = Reshape (k, to)",
            {"w": (8, 8)},
            {"to": [0, 8, 1, 1]},
            (8, 8),
        ),
    ),
    (
        "matmul-of-rank-three",
        Trap(
            "r = Reshape (h, flat)\n t = Transpose <perm = [0, 2, 1]> (r)\n k = MatMul (t, w)\n "
            "u = Transpose <perm = [0, 2, 1]> (k)\n m = Reshape (u, back)",
            {"w": (8, 8)},
            {"flat": [0, 8, 36], "back": [0, 8, 6, 6]},
            (8, 8),
        ),
    ),
    (
        "matmul-of-batched-weights",
        Trap(
            "r = Reshape (h, flat)\n t = Transpose <perm = [0, 2, 1]> (r)\n k = MatMul (t, w)\n "
            "u = Transpose <perm = [0, 2, 1]> (k)\n m = Reshape (u, back)",
            {"w": (1, 8, 8)},
            {"flat": [0, 8, 36], "back": [0, 8, 6, 6]},
            (8, 8),
        ),
    ),
)
OPTIONAL = traps(
    "optional",
    (
        "bias-not-there",
        Trap(
            "m = Conv (h, w)",
            {"w": (8, 8, 1, 1)},
            groups=(
                8,
                8,
            ),
        ),
    ),
    (
        "bias-empty",
        Trap(
            "m = Conv (h, w, )",
            {"w": (8, 8, 1, 1)},
            groups=(
                8,
                8,
            ),
        ),
    ),
    ("bounds-empty", Trap("m = Clip (h, , six)", constants={"six": np.float32(6)})),
)
AXES = traps(
    "axes",
    (
        "negative-concat",
        Trap(
            "c = Concat <axis = -3> (h, x)\n m = Conv (c, w)",
            {"w": (8, 11, 1, 1)},
            groups=(
                8,
                8,
            ),
        ),
    ),
    ("negative-softmax-of-columns", Trap("m = Softmax <axis = -1> (h)")),
    (
        "negative-quantisation",
        Trap(
            "q = QuantizeLinear <axis = -3> (h, s, z)\n m = DequantizeLinear <axis = -3> (q, s, z)",
            constants={"s": np.full(8, 0.05, np.float32), "z": np.zeros(8, np.int8)},
        ),
    ),
    (
        "quantisation",
        Trap(
            "q = QuantizeLinear <axis = 1> (h, s, z)\n m = DequantizeLinear <axis = 1> (q, s, z)",
            constants={"s": np.full(8, 0.05, np.float32), "z": np.zeros(8, np.int8)},
        ),
    ),
)
ALL = [*GROUPED, *JOINED, *RESHAPED, *MOVED, *CHOSEN, *SUMMED, *BROADCAST, *PRODUCTS, *OPTIONAL, *AXES]


@pytest.mark.parametrize("trap", ALL)
def test_what_is_pruned_equals_the_masked_original_and_what_must_stay_does(trap: Trap) -> None:
    proto = chain(trap.middle, trap.weights, **trap.constants)
    analysis = analyze(proto)
    assert tuple(sorted(group.size for group in analysis.groups)) == trap.groups
    if trap.groups:
        check(analysis)


ENDS = {"first": (8, 3, 1, 1), "last": (4, 8, 1, 1)}
WHOLE = {
    "several-inputs-and-outputs": (
        """(float[n,3,6,6] x, float[n,8,6,6] z) => (float[n,4,6,6] y, float[n,5,6,6] w) {
            h = Conv (x, first)
            s = Add (h, z)
            y = Conv (s, last)
            g = Conv (x, other)
            r = Relu (g)
            w = Conv (r, more)
        }""",
        {"other": (6, 3, 1, 1), "more": (5, 6, 1, 1)},
        (6,),
    ),
    "a-value-in-between-is-an-output": (
        """(float[n,3,6,6] x) => (float[n,4,6,6] y, float[n,8,6,6] h) {
            h = Conv (x, first)
            m = Conv (h, middle)
            y = Conv (m, last)
        }""",
        {"middle": (8, 8, 1, 1)},
        (8,),
    ),
    "parts-that-are-not-connected": (
        """(float[n,3,6,6] x, float[n,3,6,6] z) => (float[n,4,6,6] y, float[n,4,6,6] w) {
            h = Conv (x, first)
            y = Conv (h, last)
            g = Conv (z, other)
            w = Conv (g, more)
        }""",
        {"other": (6, 3, 1, 1), "more": (4, 6, 1, 1)},
        (6, 8),
    ),
    "a-branch-that-nobody-reads": (
        """(float[n,3,6,6] x) => (float[n,4,6,6] y) {
            h = Conv (x, first)
            d = Conv (h, other)
            y = Conv (h, last)
        }""",
        {"other": (6, 8, 1, 1)},
        (8,),
    ),
    "a-group-that-reaches-the-input": (
        "(float[n,8,6,6] x) => (float[n,4,6,6] y) { h = Conv (x, square)\n m = Add (h, x)\n y = Conv (m, last) }",
        {"square": (8, 8, 1, 1)},
        (),
    ),
    "a-group-that-reaches-the-output": (
        "(float[n,3,6,6] x) => (float[n,8,6,6] y) { h = Conv (x, first)\n m = Conv (h, square)\n y = Add (m, h) }",
        {"square": (8, 8, 1, 1)},
        (),
    ),
    "a-group-of-one-channel": (
        "(float[n,3,6,6] x) => (float[n,4,6,6] y) { h = Conv (x, one)\n y = Conv (h, more) }",
        {"one": (1, 3, 1, 1), "more": (4, 1, 1, 1)},
        (),
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_graphs_with_a_trap(name: str) -> None:
    text, weights, groups = WHOLE[name]
    used = {key: shape for key, shape in {**ENDS, **weights}.items() if key in text}
    analysis = analyze(model(text, used))
    prunable = sorted(
        group.size for group in analysis.groups if name != "a-branch-that-nobody-reads" or group.size == 8
    )
    assert tuple(prunable) == groups
    if groups:
        check(analysis)
