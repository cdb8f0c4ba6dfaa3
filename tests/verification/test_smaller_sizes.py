# SPDX-License-Identifier: Apache-2.0
"""Models that fix very many samples, or very large ones, are compared with fewer of them, or smaller ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import numpy_helper
from tiny_models import chain, model

import graphprune
from graphprune.errors import GraphPruneError, UnsafeModelError, VerificationError
from graphprune.model.sizes.named_sizes import SizeList
from graphprune.verification import question, verify
from graphprune.verification import smaller_sizes as smaller
from graphprune.verification.plain_run import make_inputs
from graphprune.verification.smaller_sizes import smaller_sizes
from graphprune.verification.spec import FedInput, Spec

if TYPE_CHECKING:
    from onnx import ModelProto

    from graphprune import Model, Verification


def _sized(proto: ModelProto, *shape: int) -> ModelProto:
    for dim, size in zip(proto.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    for dim in proto.graph.output[0].type.tensor_type.shape.dim:
        dim.ClearField("value")
    return proto


def _verified(proto: ModelProto) -> Verification:
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, [graphprune.BudgetRequest("flops", 0.7)])
    return graphprune.verify(analysis, graphprune.apply(analysis, plan), plan)


@pytest.mark.parametrize(
    ("shape", "smaller", "itself"),
    [
        ((65536, 3, 6, 6), "2x3x6x6", "runs as it is, and what it gave was not compared"),
        ((2, 3, 6, 2**19), "2x3x6x65536", "runs as it is, and what it gave was not compared"),
        ((2**18, 3, 2048, 6), "2x3x2048x6", "was not run as it is"),
    ],
)
def test_both_are_compared_with_fewer_samples_or_shorter_axes(
    shape: tuple[int, ...], smaller: str, itself: str
) -> None:
    verdict = _verified(_sized(chain("m = Relu (h)"), *shape))
    assert verdict.status == "verified"
    assert verdict.sizes == 1
    assert verdict.note.endswith(f"both models were compared with 'x' {smaller}; the file itself {itself}")


def test_a_file_that_does_not_run_as_it_is_counts_for_nothing_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[dict[str, tuple[int, ...]]] = []

    def refused(written: Model, original: Model, shapes: dict[str, tuple[int, ...]]) -> int:
        del written, original
        ran.append(dict(shapes))
        raise VerificationError("it does not run")

    monkeypatch.setattr(verify, "check_runs", refused)
    verdict = _verified(_sized(chain("m = Relu (h)"), 65536, 3, 6, 6))
    assert ran == [{"x": (65536, 3, 6, 6)}]
    assert (verdict.status, verdict.note) == ("verified", "")  # held to the masked original with all samples


def test_nothing_is_smaller_where_no_value_is_large() -> None:
    analysis = graphprune.analyze(graphprune.load(_sized(chain("m = Relu (h)"), 64, 3, 64, 64)))
    assert smaller_sizes(analysis) is None


def test_a_batch_that_weights_fix_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product along the samples takes no others, and the large run that would say why is not done for that."""
    monkeypatch.setattr(verify, "blame", None)
    monkeypatch.setattr(smaller, "_MOST_ELEMENTS", 1 << 10)
    proto = model(
        "(float[64,4] x) => (float[a,b] y) { h = MatMul (x, first)\n r = Relu (h)\n t = Transpose <perm = [1, 0]> (r)\n"
        " m = MatMul (t, mix)\n u = Transpose <perm = [1, 0]> (m)\n y = MatMul (u, last) }",
        {"first": (4, 8), "mix": (64, 5), "last": (8, 2)},
    )
    verdict = _verified(proto)
    assert verdict.status == "verified"
    assert not verdict.note


NAMED = {
    "flattened, and back": (
        "f = Reshape (h, flat)\n r = Relu (f)\n m = Reshape (r, image)",
        {"flat": [2, 8, 4096], "image": [0, 0, 64, 64]},
        [(2, 8, 1024), (2, 8, 32, 32)],
    ),
    "pixels in blocks": (
        "b = Reshape (h, blocks)\n t = Transpose <perm = [0, 1, 3, 5, 2, 4]> (b)\n f = Reshape (t, deep)\n"
        " r = Conv (f, mix)\n m = Relu (r)",
        {"blocks": [2, 8, 32, 2, 32, 2], "deep": [2, 32, 32, 32]},
        [(2, 8, 16, 2, 16, 2), (2, 32, 16, 16)],
    ),
    "channels and positions in one axis": (
        "f = Reshape (h, row)\n r = Relu (f)\n m = Reshape (r, image)",
        {"row": [2, 32768], "image": [2, 8, 64, 64]},
        [(2, 8192), (2, 8, 32, 32)],
    ),
    "expanded": (
        "g = GlobalAveragePool (h)\n e = Expand (g, image)\n m = Add (e, h)",
        {"image": [1, 1, 64, 64]},
        [(1, 1, 32, 32)],
    ),
    "resized": (
        "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)\n e = Resize (p, , , image)\n m = Add (e, h)",
        {"image": [2, 8, 64, 64]},
        [(2, 8, 32, 32)],
    ),
    "tiled": (
        "g = GlobalAveragePool (h)\n e = Tile (g, often)\n m = Add (e, h)",
        {"often": [1, 1, 64, 64]},
        [(1, 1, 32, 32)],
    ),
    "padded to the full size": (
        "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)\n e = Pad (p, by)\n m = Add (e, h)",
        {"by": [0, 0, 16, 16, 0, 0, 16, 16]},
        [(0, 0, 8, 8, 0, 0, 8, 8)],
    ),
    "halves": (
        "one = Slice (h, zero, half, down)\n other = Slice (h, half, full, down)\n m = Add (one, other)",
        {"zero": [0], "half": [32], "full": [64], "down": [2]},
        [(16,), (16,)],
    ),
    "borders": (
        "c = Slice (h, near, far, both)\n m = Relu (c)",
        {"near": [2, 2], "far": [62, 62], "both": [2, 3]},
        [(30, 30)],
    ),
    "parts": (
        "one, other = Split <axis = 2> (h, parts)\n m = Add (one, other)",
        {"parts": [32, 32]},
        [(16, 16)],
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_constants_name_becomes_smaller_with_the_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smaller, "_MOST_ELEMENTS", 1 << 10)
    monkeypatch.setattr(smaller, "_LONG", 64)
    middle, constants, now = NAMED[name]
    after = 32 if "deep" in constants else None
    proto = chain(middle, {"mix": (32, 32, 1, 1)} if after else None, after=after, spatial=(64, 64), **constants)
    fewer = smaller_sizes(graphprune.analyze(graphprune.load(proto)))
    assert fewer is not None
    assert fewer.sizes == {"x": (2, 3, 32, 32)}
    assert [edit.now for edit in fewer.edits if isinstance(edit, SizeList)] == now
    verdict = _verified(proto)
    assert verdict.status == "verified"
    assert "compared with 'x' 2x3x32x32" in verdict.note


def test_values_stored_for_every_position_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smaller, "_MOST_ELEMENTS", 1 << 10)
    monkeypatch.setattr(smaller, "_LONG", 64)
    verdict = _verified(chain("m = Add (h, places)", {"places": (1, 8, 64, 64)}, spatial=(64, 64)))
    assert verdict.status == "verified"
    assert "compared with 'x' 2x3x32x32" in verdict.note


def test_a_wrong_size_in_the_pruned_file_stays_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes smaller in a copy of the pruned model is its own list, not that which it should have."""
    monkeypatch.setattr(smaller, "_MOST_ELEMENTS", 1 << 10)
    monkeypatch.setattr(smaller, "_LONG", 64)
    middle, constants, _ = NAMED["channels and positions in one axis"]
    analysis = graphprune.analyze(graphprune.load(chain(middle, spatial=(64, 64), **constants)))
    plan = graphprune.solve(analysis, [graphprune.BudgetRequest("flops", 0.7)])
    pruned = graphprune.apply(analysis, plan)
    target = next(node for node in pruned.proto.graph.node if node.output[0] == "m").input[1]
    stored = next(tensor for tensor in pruned.proto.graph.initializer if tensor.name == target)
    turned = numpy_helper.to_array(stored)[[0, 1, 3, 2]] * np.array([1, 1, 2, 1]) // np.array([1, 1, 1, 2])
    stored.CopyFrom(numpy_helper.from_array(turned.astype(np.int64), target))
    with pytest.raises(GraphPruneError):
        graphprune.verify(analysis, pruned, plan)


@pytest.mark.parametrize(
    ("starts", "ends", "place", "wrong"),
    [
        ([0, 0, 0], [6, 2**31 - 1, 2**31 - 1], "far", [6, 40, 40]),
        ([0, 0, 0], [6, 2**31 - 1, 2**31 - 1], "far", [6, 2**31 - 1, 33]),
        ([0, -64, 0], [6, 64, 64], "near", [0, -50, 0]),
        ([0, 0, 0], [6, 64, 64], "far", [6, 64, 63]),
    ],
)
def test_a_cut_behind_the_end_of_a_smaller_axis_stays_wrong(
    starts: list[int], ends: list[int], place: str, wrong: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both models are compared with 32x32 pixels, a bound between 32 and 64 cuts nothing."""
    monkeypatch.setattr(smaller, "_MOST_ELEMENTS", 1 << 10)
    monkeypatch.setattr(smaller, "_LONG", 64)
    middle = "c = Slice (h, near, far, axes)\n m = GlobalMaxPool (c)"
    weights = {"first": (8, 3, 1, 1), "last": (2, 6, 1, 1)}
    proto = model(
        f"(float[2,3,64,64] x) => (float[a,b,c,d] y) {{ h = Conv (x, first)\n {middle}\n y = Conv (m, last) }}",
        weights,
        near=starts,
        far=ends,
        axes=[1, 2, 3],
    )
    analysis = graphprune.analyze(graphprune.load(proto))
    plan = graphprune.solve(analysis, [graphprune.BudgetRequest("flops", 0.7)])
    pruned = graphprune.apply(analysis, plan)
    assert "compared with 'x' 2x3x32x32" in graphprune.verify(analysis, pruned, plan).note
    cut = next(node for node in pruned.proto.graph.node if node.op_type == "Slice")
    name = cut.input[1 if place == "near" else 2]
    stored = next(tensor for tensor in pruned.proto.graph.initializer if tensor.name == name)
    list_of = numpy_helper.to_array(stored).copy()
    list_of[1:] = wrong[1:]
    stored.CopyFrom(numpy_helper.from_array(list_of, name))
    with pytest.raises(GraphPruneError):
        graphprune.verify(analysis, pruned, plan)


def test_no_value_becomes_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smaller, "_MOST_ELEMENTS", 1 << 10)
    monkeypatch.setattr(smaller, "_LONG", 64)
    proto = model(
        "(float[2,3,4,1024] x) => (float[a,b,c,d] y) { h = Conv (x, first)\n m = Slice (h, near, far, axes)\n"
        " y = Conv (m, last) }",
        {"first": (8, 3, 1, 1), "last": (2, 8, 1, 1)},
        near=[40],
        far=[60],
        axes=[3],
    )
    fewer = smaller_sizes(graphprune.analyze(graphprune.load(proto)))
    assert fewer is not None
    assert fewer.sizes == {"x": (2, 3, 4, 64)}


def test_values_too_large_for_many_runs_are_run_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights fix this size, so there is no smaller one."""
    monkeypatch.setattr(smaller, "_MOST_ELEMENTS", 1 << 10)
    monkeypatch.setattr(question, "MOST_RUN", 1 << 10)
    proto = model(
        "(float[2,3,64,64] x) => (float[a,b] y) { h = Conv (x, first)\n r = Relu (h)\n f = Flatten (r)\n"
        " y = MatMul (f, last) }",
        {"first": (8, 3, 1, 1), "last": (8 * 64 * 64, 2)},
    )
    verdict = _verified(proto)
    assert (verdict.status, verdict.sizes) == ("verified", 1)
    assert "one kind of inputs" in verdict.note
    assert verdict.compared == 5  # every tensor once, and the output of the very file


def test_large_inputs_repeat_what_is_drawn() -> None:
    spec = Spec(inputs={"x": FedInput([1 << 23], "float32", "float32")}, tensors=[])
    value = make_inputs(spec, "normal")["x"]
    drawn = (1 << 22) - 3
    assert value.dtype == np.float32
    assert np.array_equal(value[drawn : 2 * drawn], value[:drawn])


def test_a_value_out_of_all_proportion_is_refused_before_anything_runs() -> None:
    proto = chain("m = Pad (h, by)", by=[2**20, 0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(UnsafeModelError, match=r"value 'm' of shape \[1048578, 8, 6, 6\] has more than 4096 times"):
        graphprune.analyze(graphprune.load(proto))
