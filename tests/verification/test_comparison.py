# SPDX-License-Identifier: Apache-2.0
"""The comparison of two models: rounding passes, differences do not, and chaos on extreme inputs judges nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from graphprune.verification.comparison import Comparison, make_inputs

if TYPE_CHECKING:
    from pathlib import Path

# On inputs around 1 this passes rounding on; on inputs around 10 the sine of huge numbers is chaotic.
CHAOTIC = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[4, 8] x) => (float[4, 8] y)
<float scale = {{{scale}}}, float six = {{6.0}}, float shift = {{{shift}}}>
{{
    scaled = Mul (x, scale)
    power = Pow (scaled, six)
    wave = Sin (power)
    y = Add (wave, shift)
}}
"""
SPEC = {
    "inputs": {"x": {"shape": [4, 8], "dtype": "float32"}},
    "tensors": [{"name": "y", "elements": 32, "compare": True, "end": True}],
}
ROUNDING = 1 + float(np.finfo(np.float32).eps)


def compared(folder: Path, scale: float = 1.0, shift: float = 0.0) -> dict[str, Any]:
    """Compare the network with one that scales and shifts a little differently."""
    for name, values in (("masked", (1.0, 0.0)), ("pruned", (scale, shift))):
        text = CHAOTIC.format(scale=f"{values[0]:.9f}", shift=f"{values[1]:.9f}")
        onnx.save(onnx.parser.parse_model(text), folder / f"{name}.onnx")
    np.savez(folder / "keep.npz")
    np.savez(folder / "masks.npz")
    return Comparison(folder, SPEC).run()


def test_rounding_passes_even_if_extreme_inputs_amplify_it(tmp_path: Path) -> None:
    result = compared(tmp_path, scale=ROUNDING)
    assert not result["failed"]
    assert result["compared"] == 2  # normal and zeros; the large input is chaotic


def test_a_difference_fails(tmp_path: Path) -> None:
    assert compared(tmp_path, shift=0.01)["failed"]


def test_a_scaled_input_fails(tmp_path: Path) -> None:
    assert compared(tmp_path, scale=1.01)["failed"]


def test_equal_models_are_compared_where_rounding_can_be_told_from_difference(tmp_path: Path) -> None:
    result = compared(tmp_path)
    assert (result["failed"], result["error"], result["compared"]) == (False, 0.0, 2)


def test_moved_inputs_differ_by_rounding_only() -> None:
    for kind, largest in (("normal", 5.0), ("zeros", 1.0), ("large", 50.0)):
        still, moved = make_inputs(SPEC, kind)["x"], make_inputs(SPEC, kind, moved=True)["x"]
        assert not np.array_equal(still, moved)
        assert float(np.abs(still - moved).max()) <= 2 * largest * float(np.finfo(np.float32).eps)
