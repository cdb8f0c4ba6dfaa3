# SPDX-License-Identifier: Apache-2.0
"""Verification: what is right passes, what is wrong is caught, and what proves nothing is said to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from oracle_check import analyze, halves
from tiny_models import chain, model

from graphprune import api
from graphprune.analysis.analysis import Analysis
from graphprune.errors import UnsupportedModelError, VerificationError
from graphprune.model.load import load
from graphprune.surgery.prune import prune
from graphprune.surgery.slices import Kept
from graphprune.verification.jumps import discrete_names
from graphprune.verification.oracle import build_oracle
from graphprune.verification.verify import Verification, verify_pruned

WEIGHTS = {"middle": (8, 8, 3, 3), "b": (8,)}
MODEL = chain("c = Conv <pads = [1, 1, 1, 1]> (h, middle, b)\n m = Relu (c)", WEIGHTS)


def _verify(analysis: Analysis, proto: ModelProto, keep: Any, **options: Any) -> Verification:
    return verify_pruned(analysis, analysis.model.replaced(proto), keep, **options)


def _edit(proto: ModelProto, name: str, change: Any) -> None:
    """Replace a stored tensor."""
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))
            return
    raise AssertionError(name)


def test_good_surgery_is_verified() -> None:
    analysis = analyze(MODEL)
    keep = halves(analysis)
    found = _verify(analysis, prune(analysis, keep), keep)
    assert found.status == "verified"
    assert found.ok
    assert found.error <= found.tolerance <= 1e-3
    assert found.effect > 0.01
    assert found.compared >= 4


def _one_weight(value: Any) -> Any:
    value.flat[3] += 0.5
    return value


TAMPERED = {
    "one-weight": ("middle", _one_weight),
    "swapped-rows": ("first", lambda value: value[::-1].copy()),
    "zeroed-bias": ("b", np.zeros_like),
    "not-a-number": ("b", lambda value: np.full_like(value, np.nan)),
    "scaled-by-a-thousandth": ("last", lambda value: value * np.float32(1.001)),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_weights_fail(name: str) -> None:
    analysis = analyze(MODEL)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    _edit(pruned, *TAMPERED[name])
    found = _verify(analysis, pruned, keep)
    assert found.status == "failed"
    assert not found.ok
    assert found.error > found.tolerance
    assert found.tensor


def test_the_slices_of_another_plan_fail() -> None:
    """Widths agree, so the model runs; it is only not what the plan says."""
    analysis = analyze(MODEL)
    keep, other = halves(analysis, seed=1), halves(analysis, seed=2)
    assert not np.array_equal(keep, other)
    assert _verify(analysis, prune(analysis, other), keep).status == "failed"


def test_another_width_fails() -> None:
    analysis = analyze(MODEL)
    keep = halves(analysis)
    more = keep.copy()
    more[np.flatnonzero(~keep)[0]] = True
    assert _verify(analysis, prune(analysis, more), keep).status == "failed"


def test_masking_that_moves_nothing_is_vacuous() -> None:
    """All the removed channels are zero already: agreement says nothing about where they were cut."""
    proto = ModelProto.FromString(MODEL.SerializeToString())
    keep = np.concatenate([np.arange(8) < 4, np.ones(8, dtype=np.bool_)])
    _edit(proto, "first", lambda value: value * keep[:8].reshape(8, 1, 1, 1).astype(np.float32))
    analysis = analyze(proto)
    found = _verify(analysis, prune(analysis, keep), keep)
    assert found.status == "vacuous"
    assert found.effect < 1e-3


def test_removing_nothing_is_not_vacuous() -> None:
    analysis = analyze(MODEL)
    keep = np.ones(16, dtype=np.bool_)
    assert _verify(analysis, prune(analysis, keep), keep).status == "verified"


def test_a_model_that_onnxruntime_does_not_know_is_a_clear_error() -> None:
    proto = model(
        """(float[2,3,6,6] x) => (float[2,2,6,6] y) {
            h = Conv (x, first)
            r = Conv (h, last)
            y = com.example.Whiten (r)
        }""",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)},
        domains=', "com.example": 1',
    )
    analysis = analyze(proto)
    assert [group.size for group in analysis.groups] == [8]
    keep = halves(analysis)
    with pytest.raises(UnsupportedModelError, match=r"com\.example:Whiten") as caught:
        _verify(analysis, prune(analysis, keep), keep)
    assert caught.value.hint
    assert "Traceback" not in caught.value.message


def test_sizes_with_which_the_original_does_not_run_are_a_clear_error() -> None:
    """The position that is read is computed from data, so that no inference knows how long the input has to be."""
    proto = model(
        """(float[n,3,length] x) => (float[n,2,one] y) {
            r = ReduceMax (x)
            t = Cast <to = 7> (r)
            u = Mul (t, nothing)
            w = Add (u, far)
            v = Reshape (w, single)
            p = Gather <axis = 2> (x, v)
            h = Conv (p, first)
            y = Conv (h, last)
        }""",
        {"first": (8, 3, 1), "last": (2, 8, 1)},
        nothing=np.int64(0),
        far=np.int64(300),
        single=[1],
    )
    analysis = analyze(proto)
    keep = halves(analysis)
    with pytest.raises(UnsupportedModelError, match=r"sizes that were assumed .*'x' 1x3x16") as caught:
        _verify(analysis, prune(analysis, keep), keep)
    assert caught.value.hint == "give sizes with which it runs, e.g. --input-shape x=1x3x512"
    fitting = Analysis(load(proto), {"x": (1, 3, 512)})
    assert _verify(fitting, prune(fitting, keep), keep).status == "verified"


def test_sizes_are_assumed_with_which_the_original_runs() -> None:
    proto = model(
        """(float[n,3,length] x) => (float[n,2,length] y) {
            p = Pad <mode = "reflect"> (x, pads)
            h = Conv (p, first)
            y = Conv (h, last)
        }""",
        {"first": (8, 3, 41), "last": (2, 8, 1)},
        pads=[0, 0, 20, 0, 0, 20],
    )
    analysis = analyze(proto)
    assert analysis.input_shapes == {"x": (1, 3, 32)}, "what is mirrored is longer than what it is padded by"
    keep = halves(analysis)
    assert _verify(analysis, prune(analysis, keep), keep).status == "verified"


def test_a_pruned_model_that_does_not_run_is_an_error() -> None:
    analysis = analyze(MODEL)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    _edit(pruned, "last", lambda value: value[:, :2].copy())
    with pytest.raises(VerificationError, match="could not be"):
        _verify(analysis, pruned, keep)


def test_time_is_limited() -> None:
    analysis = analyze(MODEL)
    keep = halves(analysis)
    with pytest.raises(VerificationError, match="did not finish within") as caught:
        _verify(analysis, prune(analysis, keep), keep, timeout=0.01)
    assert "--input-shape" in (caught.value.hint or "")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    analysis = analyze(MODEL)
    keep = halves(analysis)
    assert _verify(analysis, prune(analysis, keep), keep).ok
    assert list(tmp_path.glob("graphprune*")) == []


DISCRETE = """(float[2,3,6,6] x) => (float[2,2] y, float[2,5] z) {
    h = Conv (x, first)
    c = Conv (h, last)
    p = GlobalAveragePool (c)
    y = Flatten (p)
    f = Flatten (c)
    best, i = TopK (f, five)
    z = Relu (best)
}"""


def test_what_is_behind_discrete_operators_is_left_out() -> None:
    proto = model(DISCRETE, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)}, five=[5])
    analysis = analyze(proto)
    assert discrete_names(analysis) == {"best", "i", "z"}
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    found = _verify(analysis, pruned, keep)
    assert found.status == "verified"
    assert found.effect > 0.01
    (relu,) = (node for node in pruned.graph.node if node.op_type == "Relu")
    relu.op_type = "Neg"  # wrong, but behind the operator whose result may jump
    assert _verify(analysis, pruned, keep).status == "verified"


def test_what_enters_a_discrete_operator_is_compared() -> None:
    text = DISCRETE.replace(", float[2,5] z", "").replace("float[2,2] y", "float[2,5] z")
    proto = model(text, {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)}, five=[5])
    analysis = analyze(proto)
    keep = halves(analysis)
    pruned = prune(analysis, keep)
    found = _verify(analysis, pruned, keep)
    assert found.status == "verified"
    assert found.effect > 0.01
    _edit(pruned, "last", _one_weight)
    assert _verify(analysis, pruned, keep).status == "failed"


# the masked original --------------------------------------------------------------------------


def test_the_oracle_masks_every_contraction_once_per_value() -> None:
    analysis = analyze(
        chain("a = Conv (h, one)\n b = Conv (h, two)\n m = Add (a, b)", {"one": (8, 8, 1, 1), "two": (8, 8, 1, 1)})
    )
    oracle = build_oracle(analysis, Kept(analysis, halves(analysis)).mask)
    assert [node.op_type for node in oracle.model.graph.node] == [
        "Conv",
        "Where",
        "Conv",
        "Conv",
        "Add",
        "Where",
        "Conv",
    ]
    assert [value.shape for value in oracle.masks.values()] == [(1, 8, 1, 1), (1, 8, 1, 1)]
    assert all(value.sum() == 4 for value in oracle.masks.values())


def test_the_oracle_of_nothing_removed_is_the_original() -> None:
    analysis = analyze(MODEL)
    oracle = build_oracle(analysis, Kept(analysis, np.ones(16, dtype=np.bool_)).mask)
    assert oracle.model == MODEL
    assert oracle.masks == {}


AVERAGED = """(float[1,3,224,224] x) => (float[1,10] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, first, bias)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, second)
    d = Relu (c)
    p = GlobalAveragePool (d)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, head)
}"""


def test_kernels_that_sum_in_another_order_are_no_difference() -> None:
    """Fifty thousand equal numbers are averaged; which kernel does that hangs on the number of channels."""
    proto = model(
        AVERAGED, {"first": (16, 3, 3, 3), "bias": (16,), "second": (16, 16, 3, 3), "head": (10, 16)}, opset=17
    )
    analysis = analyze(proto)
    keep = np.ones(len(analysis.grouping.group_of), dtype=np.bool_)
    for group, count in enumerate((8, 12)):
        keep[np.flatnonzero(analysis.grouping.group_of == group)[count:]] = False
    verification = _verify(analysis, prune(analysis, keep), keep)
    assert verification.status == "verified"
    assert verification.tolerance == 1e-4


def test_a_long_list_of_sizes_is_no_weight() -> None:
    """A session looks at it before it opens the files that weights lie in."""
    parts = [f"s{number}" for number in range(300)]
    proto = model(
        f"(float[1,300] x) => (float[1,4] y) {{ {', '.join(parts)} = Split <axis = 1> (x, parts)"
        f" c = Concat <axis = 1> ({', '.join(parts)}) h = MatMul (c, first) r = Relu (h) y = MatMul (r, last) }}",
        {"first": (300, 16), "last": (16, 4)},
        parts=[1] * 300,
    )
    analysis = Analysis(load(proto))
    plan = api.solve(analysis, api.BudgetRequest("flops", 0.6))
    assert api.verify(analysis, api.apply(analysis, plan), plan).status == "verified"


def test_loops_of_the_oldest_operator_sets_are_made_to_run() -> None:
    """`Where`, and `Less` of integers, are newer than that."""
    body = (
        "step (int64 i, bool go, float[2,8] s) => (bool on, float[2,8] t)"
        " { t = Neg (s)\n n = ReduceSum <keepdims = 0> (s)\n on = Less (n, limit) }"
    )
    proto = model(
        "(float[2,4] x) => (float[2,4] y) { h = MatMul (x, up)\n"
        f' m = Loop (five, "", h) <body = {body}>\n y = MatMul (m, down) }}',
        {"up": (4, 8), "down": (8, 4)},
        opset=7,
        five=np.array(5),
        limit=np.array([9.0], np.float32),
    )
    analysis = analyze(proto)
    keep = halves(analysis)
    assert verify_pruned(analysis, load(prune(analysis, keep)), keep).status == "verified"
