# SPDX-License-Identifier: Apache-2.0
"""Models that fix very many samples, or very large ones, are compared with fewer of them, or smaller ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tiny_models import chain, model

import graphprune
from graphprune.errors import UnsafeModelError, VerificationError
from graphprune.verification import verify
from graphprune.verification.smaller_sizes import smaller_sizes

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
        ((65536, 3, 6, 6), "2x3x6x6", "ran as it is"),
        ((2, 3, 6, 2**19), "2x3x6x65536", "ran as it is"),
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


def test_a_batch_that_the_graph_names_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reshape to the very batch takes no other one, and the large run that would say why is not done for that."""
    monkeypatch.setattr(verify, "blame", None)
    batch = 2**20
    proto = model(
        "(float[B,4] x) => (float[a,b] y) { h = MatMul (x, first)\n r = Relu (h)\n s = Reshape (r, same)\n"
        " y = MatMul (s, last) }".replace("B", str(batch)),
        {"first": (4, 8), "last": (8, 2)},
        same=[batch, 8],
    )
    verdict = _verified(proto)
    assert verdict.status == "verified"
    assert not verdict.note


def test_a_value_out_of_all_proportion_is_refused_before_anything_runs() -> None:
    proto = chain("m = Pad (h, by)", by=[2**20, 0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(UnsafeModelError, match=r"value 'm' of shape \[1048578, 8, 6, 6\] has more than 4096 times"):
        graphprune.analyze(graphprune.load(proto))
