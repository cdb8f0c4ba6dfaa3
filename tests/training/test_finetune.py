# SPDX-License-Identifier: Apache-2.0
"""The finetune round: it learns, it keeps only what helped, and it survives whatever happens on the way."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from training_cases import Arrays, folded, images, infer, loaded, normalised, source
from training_runs import pruned

from graphprune.data.source import Source
from graphprune.errors import UsageError
from graphprune.training.device_memory import enough_memory
from graphprune.training.finetune import Finetuned, FinetuneOptions, finetune, lower
from graphprune.training.preparation import prepare
from graphprune.training.trainer import Optimisation

QUICK = FinetuneOptions(epochs=4, batch=32, rate=0.01, augment="none", device="cpu", held_out=32)


def test_rounding_is_no_improvement() -> None:
    assert lower(0.9, 1.0)
    assert not lower(0.99995, 1.0)
    assert not lower(-2e-7, 0.0)
    assert not lower(float("nan"), 1.0)


def tuned(
    options: FinetuneOptions = QUICK, *, labels: bool = False, teacher: bool = True, make: Any = normalised
) -> Finetuned:
    original = loaded(make())
    x = images(160)
    y = infer(original, x).argmax(1).astype(np.int64) if labels else None
    data = Source.whole("noise", Arrays({"image": x}, y))
    return finetune(pruned(original), data, original if teacher else None, options)


@pytest.mark.parametrize("make", [normalised, folded])
def test_distillation_without_labels(make: Any) -> None:
    result = tuned(make=make)
    assert result.improved
    assert result.after.loss < 0.8 * result.before.loss
    assert result.before.accuracy is None
    assert result.facts["unfolded"] == (2 if make is folded else 0)
    assert {node.op_type for node in result.model.proto.graph.node} == {node.op_type for node in make().graph.node}


def test_no_label_fits_images_of_two() -> None:
    mixed = replace(QUICK, augment="cutmix", epochs=1)
    assert tuned(mixed).facts["augment"] == "cutmix"
    assert tuned(replace(mixed, label_weight=0.0), labels=True).after.accuracy is not None
    for options, teacher in ((mixed, True), (mixed, False), (replace(mixed, label_weight=0.0), False)):
        with pytest.raises(UsageError, match="no label fits"):
            tuned(options, labels=True, teacher=teacher)


def test_every_round_of_a_process_has_its_own_precision() -> None:
    original = loaded(normalised())
    data = Source.whole("noise", Arrays({"image": images(64)}, None))
    for precision in ("no", "bf16", "no"):
        task, *_ = prepare(pruned(original), data, original, replace(QUICK, precision=precision))
        assert task.accelerator.mixed_precision == precision


def test_float16_without_a_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a GPU"):
        tuned(replace(QUICK, precision="fp16"))


def test_labels_alone() -> None:
    result = tuned(labels=True, teacher=False, make=folded)
    assert result.improved
    assert result.after.accuracy is not None
    assert result.before.accuracy is not None
    assert result.after.accuracy >= result.before.accuracy
    assert result.after.agreement is None


def test_maps_are_distilled_too() -> None:
    original = loaded(graphprune_map())
    data = Source.whole("noise", Arrays({"image": images(96)}))
    result = finetune(pruned(original), data, original, replace(QUICK, optimisation=Optimisation("adamw")))
    assert result.facts["losses"] == {"y": "mse"}
    assert result.improved


def graphprune_map() -> onnx.ModelProto:
    from tiny_models import model

    text = """(float[n,3,8,8] image) => (float[n,2,8,8] y) {
        a = Conv (image, w0, b0)
        b = Relu (a)
        y = Conv (b, w1)
    }"""
    return model(text, {"w0": (8, 3, 1, 1), "b0": (8,), "w1": (2, 8, 1, 1)})


def test_a_rate_is_searched_for_and_a_bad_one_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphprune.training import finetune as module

    monkeypatch.setattr(module, "_RATES", {"sgd": (1e30, 0.01)})
    result = tuned(replace(QUICK, rate=None))
    assert result.rate == 0.01
    assert result.searched[1e30] > result.searched[0.01]
    assert result.improved


def test_what_did_not_help_is_not_kept() -> None:
    original = loaded(normalised())
    result = finetune(original, source(96), original, replace(QUICK, rate=1.0, kinds={"scores": "mse"}))
    assert not result.improved  # it was perfect
    assert result.model is original
    assert result.after == result.before


def test_a_run_that_explodes_stops_with_the_best_so_far() -> None:
    calls = {"training": 0}

    def loss(outputs: Any, teacher: Any, labels: Any) -> torch.Tensor:
        value = (outputs["scores"] - teacher["scores"]).square().mean()
        calls["training"] += outputs["scores"].requires_grad
        return value * (math.nan if calls["training"] > 10 else 1.0)

    result = tuned(replace(QUICK, loss=loss))
    assert "not finite" in result.stopped
    assert result.steps == 9  # the first call only tried whether there are gradients
    assert result.best_step == 8
    assert result.improved


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "mps", "cpu"],
)
def test_a_device_without_memory_is_said_with_what_may_help(error: RuntimeError) -> None:
    def loss(outputs: Any, teacher: Any, labels: Any) -> torch.Tensor:
        raise error

    with pytest.raises(UsageError, match=r"too little memory: .*memory") as caught:
        tuned(replace(QUICK, loss=loss))
    assert "--batch" in (caught.value.hint or "")
    assert "more" not in caught.value.message


def test_other_errors_of_torch_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), enough_memory():
        raise RuntimeError("size mismatch")


def test_averaged_weights_are_what_is_kept() -> None:
    result = tuned(replace(QUICK, optimisation=Optimisation(ema=0.9)))
    assert result.improved
    plain = tuned(QUICK)
    assert result.model.proto != plain.model.proto


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": False}, "no labels"),
        ({"options": replace(QUICK, loss=lambda outputs, teacher, labels: torch.ones(()))}, "no scalar tensor"),
        ({"options": replace(QUICK, held_out=160)}, "held out"),
        ({"options": replace(QUICK, kinds={"nothing": "kl"})}, "'nothing'"),
    ],
)
def test_what_cannot_be_learned_is_said_before(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tuned(**change)


def test_another_teacher_is_refused() -> None:
    with pytest.raises(UsageError, match="teacher"):
        finetune(loaded(normalised()), source(), loaded(graphprune_map()), QUICK)
