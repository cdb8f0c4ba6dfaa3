# SPDX-License-Identifier: Apache-2.0
"""The comparison of two models: rounding passes, differences do not, and chaos on extreme inputs judges nothing."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from graphprune.verification.comparison import Comparison
from graphprune.verification.orders import Orders
from graphprune.verification.plain_run import OriginalError, make_inputs
from graphprune.verification.spec import REFERENCE, SOURCE, WRITTEN, FedInput, Spec, TensorSpec

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
SPEC = Spec(
    inputs={"x": FedInput([4, 8], "float32")},
    tensors=[TensorSpec("y", end=True)],
    outputs=["y"],
)
ROUNDING = 1 + float(np.finfo(np.float32).eps)


def laid_out(folder: Path, scale: float = 1.0, shift: float = 0.0) -> Path:
    """Write the network, and one that scales and shifts a little differently."""
    files = [(1.0, 0.0, ("masked.onnx", REFERENCE, SOURCE)), (scale, shift, ("pruned.onnx", WRITTEN))]
    for factor, offset, names in files:
        text = CHAOTIC.format(scale=f"{factor:.9f}", shift=f"{offset:.9f}")
        for name in names:
            onnx.save(onnx.parser.parse_model(text), folder / name)
    Orders().write(folder)
    np.savez(folder / "masks.npz")
    return folder


def compared(folder: Path, scale: float = 1.0, shift: float = 0.0) -> dict[str, Any]:
    """Compare the network with one that scales and shifts a little differently."""
    return Comparison(laid_out(folder, scale, shift), SPEC).run()


def test_rounding_passes_even_if_extreme_inputs_amplify_it(tmp_path: Path) -> None:
    result = compared(tmp_path, scale=ROUNDING)
    assert not result["failed"]
    assert result["compared"] == 3  # normal, also plainly, and zeros; the large input is chaotic


def test_a_difference_fails(tmp_path: Path) -> None:
    assert compared(tmp_path, shift=0.01)["failed"]


def test_a_scaled_input_fails(tmp_path: Path) -> None:
    assert compared(tmp_path, scale=1.01)["failed"]


def test_equal_models_agree_on_every_kind_of_input(tmp_path: Path) -> None:
    result = compared(tmp_path)
    assert (result["failed"], result["error"], result["compared"], result["sizes"]) == (False, 0.0, 4, 1)


def test_moved_inputs_differ_by_rounding_only() -> None:
    for kind, largest in (("normal", 5.0), ("zeros", 1.0), ("large", 50.0)):
        still, moved = make_inputs(SPEC, kind)["x"], make_inputs(SPEC, kind, moved=True)["x"]
        assert not np.array_equal(still, moved)
        assert float(np.abs(still - moved).max()) <= 2 * largest * float(np.finfo(np.float32).eps)


# The sum over all values and an offset that cancels it on the first draw of inputs.
CANCELLING = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[4, 8] x) => (float[1, 1] y)
<float scale = {{{scale}}}, float offset = {{{offset}}}>
{{
    scaled = Mul (x, scale)
    sum = ReduceSum (scaled)
    y = Add (sum, offset)
}}
"""


@pytest.mark.parametrize(("scale", "failed"), [(1 + 5e-6, False), (1 + 1e-3, True)])
def test_outputs_that_cancel_on_one_draw_are_held_to_their_usual_size(
    scale: float, failed: bool, tmp_path: Path
) -> None:
    total = float(make_inputs(SPEC, "normal")["x"].sum())
    for factor, names in [(1.0, ("masked.onnx", REFERENCE, SOURCE)), (scale, ("pruned.onnx", WRITTEN))]:
        text = CANCELLING.format(scale=f"{factor:.9f}", offset=f"{1e-2 - total:.9f}")
        for name in names:
            onnx.save(onnx.parser.parse_model(text), tmp_path / name)
    Orders().write(tmp_path)
    np.savez(tmp_path / "masks.npz")
    assert Comparison(tmp_path, SPEC).run()["failed"] is failed


# Behind `q` lies a branch that reads where nothing is.
SWITCHED = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[4, 8] x, bool p, bool q, bool r) => (float[4, 8] y)
<int64 beyond = {1000}, int64 first = {0}, float[2] table = {1.0, 2.0}>
{
    at = Where (q, beyond, first)
    shift = Gather (table, at)
    turned = Neg (x)
    one = Where (p, turned, x)
    other = Where (r, turned, one)
    y = Add (other, shift)
}
"""
PLAIN = SWITCHED.replace(", bool p, bool q, bool r", "").replace("(q, beyond, first)", "(none, beyond, first)")
PLAIN = PLAIN.replace("(p, ", "(none, ").replace("(r, ", "(none, ").replace("<int64", "<bool none = {0}, int64")


def test_a_branch_that_cannot_run_does_not_hide_those_that_are_taken_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, names in ((SWITCHED, ("masked.onnx", "pruned.onnx", REFERENCE, "ends.onnx")), (PLAIN, (WRITTEN, SOURCE))):
        for name in names:
            onnx.save(onnx.parser.parse_model(text), tmp_path / name)
    Orders().write(tmp_path)
    np.savez(tmp_path / "masks.npz")
    ways: list[list[str]] = []
    real = Comparison._effect

    def noted(self: Comparison) -> float:
        ways.append(self.forced)
        return real(self)

    monkeypatch.setattr(Comparison, "_effect", noted)
    spec = replace(SPEC, switches=["p", "q", "r"], branches=[[["p"], ["q"], ["r"]]], ends="ends.onnx")
    assert not Comparison(tmp_path, spec).run()["failed"]
    assert ways == [["p"], ["r"]]
    with pytest.raises(OriginalError):
        Comparison(tmp_path, replace(spec, branches=[[["q"]]])).run()


def test_what_is_looked_at_once_is_closed(tmp_path: Path) -> None:
    comparison = Comparison(laid_out(tmp_path), SPEC)
    comparison.run()
    assert comparison.whole._session is not None
    assert comparison.all.masked._session is comparison.all.pruned._session is None


@pytest.mark.parametrize("lean", [False, True])
def test_large_models_are_opened_one_after_the_other(tmp_path: Path, lean: bool) -> None:
    opened: list[object] = []

    class Pool(Executor):
        def submit(self, function: Any, /, *_: Any, **__: Any) -> Future[Any]:
            opened.append(function.__self__)
            return Future()

    comparison = Comparison(laid_out(tmp_path), replace(SPEC, lean=lean))
    comparison.open_ahead(Pool())
    assert opened == [comparison.plain.passage, comparison.whole][: 1 if lean else 2]
