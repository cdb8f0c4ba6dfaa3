# SPDX-License-Identifier: Apache-2.0
"""Rules of `Resize` and `Upsample`, and how absolute sizes follow."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper
from oracle_check import analyze, check, run
from rule_cases import Case, Stays, rule_tests
from tiny_models import chain, model

DOUBLE = np.array([1, 1, 2, 2], dtype=np.float32)

CASES = [
    Case("scales", chain("m = Resize (h, , scales)", scales=DOUBLE)),
    Case("sizes", chain("m = Resize (h, , , sizes)", sizes=[2, 8, 12, 9])),
    Case("sizes-linear", chain('m = Resize <mode = "linear"> (h, , , sizes)', sizes=[2, 8, 12, 9])),
    Case("sizes-by-axes", chain("m = Resize <axes = [2, 3]> (h, , , sizes)", opset=18, sizes=[12, 9])),
    Case("sizes-by-all-axes", chain("m = Resize <axes = [3, 1]> (h, , , sizes)", opset=18, sizes=[12, 8])),
    Case(
        "aspect-ratio-of-space",
        chain(
            'm = Resize <axes = [2, 3], keep_aspect_ratio_policy = "not_smaller"> (h, , , sizes)',
            opset=18,
            sizes=[12, 9],
        ),
    ),
    Case("upsample-input", chain("m = Upsample (h, scales)", opset=9, scales=DOUBLE)),
    Case("upsample-attribute", chain("m = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (h)", opset=7)),
    Case("resize-10", chain("m = Resize (h, scales)", opset=10, scales=DOUBLE)),
    Case("resize-11", chain("m = Resize (h, roi, scales)", opset=11, scales=DOUBLE, roi=np.zeros(0, np.float32))),
]


def _frozen(name: str, text: str, after: int, **constants: Any) -> Stays:
    proto = model(
        f"""(float[2,3,6,6] x) => (float[a,b,c,d] y) {{
            h = Conv (x, first)
            {text}
            n = Conv (m, middle)
            y = Conv (n, last)
        }}""",
        {"first": (8, 3, 1, 1), "middle": (4, after, 1, 1), "last": (2, 4, 1, 1)},
        **constants,
    )
    return Stays(name, proto, ("Resize", "m"), groups={"n": (4, "middle.0 out, last.1 in")})


STAYS = [
    _frozen("along-channels", "m = Resize (h, , , sizes)", 16, sizes=[2, 16, 6, 6]),
    _frozen(
        "aspect-ratio-with-channels",
        'm = Resize <axes = [1, 2], keep_aspect_ratio_policy = "not_smaller"> (h, , , sizes)',
        8,
        opset=18,
        sizes=[8, 5],
    ),
    _frozen(
        "crop",
        'm = Resize <coordinate_transformation_mode = "tf_crop_and_resize", mode = "linear"> (h, roi, , sizes)',
        8,
        sizes=[2, 8, 6, 6],
        roi=np.array([0, 0, 0, 0, 1, 1, 0.5, 0.5], dtype=np.float32),
    ),
]

test_keeps, test_numbers, test_freezes = rule_tests(CASES, STAYS)


def _sizes(pruned: ModelProto) -> list[int] | None:
    (node,) = (node for node in pruned.graph.node if node.op_type == "Resize")
    stored = {t.name: numpy_helper.to_array(t).tolist() for t in pruned.graph.initializer}
    return stored.get(node.input[3])


def test_sizes_name_the_kept_channels() -> None:
    assert _sizes(check(CASES[1].model).pruned) == [2, 4, 12, 9]


def test_sizes_without_channels_are_left_alone() -> None:
    assert _sizes(check(CASES[3].model).pruned) == [12, 9]


def test_sizes_by_axes_in_any_order() -> None:
    assert _sizes(check(CASES[4].model).pruned) == [12, 4]


COMPUTED = """size = Shape (h)
    two = Slice (size, from, to)
    doubled = Mul (two, factor)
    sizes = Concat <axis = 0> (%s, doubled)
    m = Resize (h, , , sizes)"""


def _open(front: str) -> ModelProto:
    constants: dict[str, Any] = {"from": [2], "to": [4], "factor": [2, 2], "literal": [2, 8]}
    return model(
        f"""(float[2,3,H,W] x) => (float[2,2,a,b] y) {{
            h = Conv (x, first)
            head = Shape <end = 2> (h)
            {COMPUTED % front}
            y = Conv (m, last)
        }}""",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)},
        **constants,
    )


def test_computed_sizes_follow_by_themselves() -> None:
    analysis = analyze(_open("head"), x=(2, 3, 6, 4))
    pruned = check(analysis).pruned
    assert run(pruned, {"x": np.ones((2, 3, 5, 3), dtype=np.float32)}, ["y"])["y"].shape == (2, 2, 10, 6)


def test_literal_channels_beside_open_sizes() -> None:
    pruned = check(analyze(_open("literal"), x=(2, 3, 6, 4)), np.arange(8) < 4).pruned
    assert run(pruned, {"x": np.ones((2, 3, 5, 3), dtype=np.float32)}, ["y"])["y"].shape == (2, 2, 10, 6)
