# SPDX-License-Identifier: Apache-2.0
"""Rows J: training, and the files that it reads and leaves."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from attacks.bench import Bench, Row, Trial, check, from_tests

__all__ = ["ROWS"]

_TRAIN = (
    *("train", "net.onnx", "--data", "data.npz", "--method", "cac", "--flops", "0.7", "--round-to", "1"),
    *("--epochs", "12", "--batch", "16", "--checkpoint-every", "1", "--device", "cpu"),
)
_TUNE = (
    "finetune",
    "net.pruned.onnx",
    "--teacher",
    "net.onnx",
    "--data",
    "data.npz",
    "--device",
    "cpu",
    "--batch",
    "16",
)
_STATE = "net.trained.onnx.checkpoint.safetensors"
_SAVED = "net.pruned.finetuned.onnx.checkpoint.safetensors"


def _prepared(bench: Bench, name: str = "net.onnx") -> onnx.ModelProto:
    """Write a small network and samples for it."""
    model = from_tests("support/pruning_cases").KINDS["folded"]()
    bench.write(model, name)
    images = from_tests("support/training_cases").images(96)
    np.savez(bench.folder / "data.npz", image=images, labels=np.arange(96) % 4)
    return model


def _pruned(bench: Bench) -> None:
    _prepared(bench)
    bench.done(bench.solve("net.onnx", "--flops", "0.5"))


def _stopped(bench: Bench) -> Path:
    """Start a training, kill it once it has saved its state, and return where that is."""
    _prepared(bench)

    def kill(number: int) -> None:
        until = time.monotonic() + 120
        while not (bench.folder / _STATE).exists() and time.monotonic() < until:
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)

    done = bench.graphprune(*_TRAIN, meanwhile=kill)
    check(done.code == -signal.SIGKILL, f"it ended before: {done.code} {done.err[-300:]}")
    check(not list(bench.folder.glob("net.trained.onnx")), "a result was written")
    for path in bench.folder.glob(".graphprune-*"):  # of a write that was killed
        path.unlink()
    return bench.folder / _STATE


class _Code:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("pwned", "w")


def _pickled_samples(bench: Bench) -> None:
    _pruned(bench)
    np.savez(bench.folder / "data.npz", image=np.array([_Code()], dtype=object))
    bench.refused(bench.graphprune(*_TUNE), "pickled|object")
    bench.write(pickle.dumps(_Code()), "data.pt")
    bench.refused(bench.graphprune(*_TUNE, "--data", "data.pt"), "")
    check(not (bench.folder / "pwned").exists(), "it was unpickled")


def _pickled_state(bench: Bench) -> None:
    _pruned(bench)
    bench.write(pickle.dumps(_Code()), _SAVED)
    bench.refused(bench.graphprune(*_TUNE, "--resume"), "damaged|checkpoint")
    check(not (bench.folder / "pwned").exists(), "it was unpickled")


def state(change: Callable[[dict[str, np.ndarray]], object]) -> Trial:
    """Return the trial of a saved state whose tensors were changed."""

    def trial(bench: Bench) -> None:
        import safetensors
        from safetensors.numpy import load_file, save_file

        path = _stopped(bench)
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata)
        bench.refused(bench.graphprune(*_TRAIN, "--resume"), "checkpoint")

    return trial


def _weight(tensors: dict[str, np.ndarray]) -> str:
    """Return the name of a saved tensor with several axes."""
    return next(name for name, value in sorted(tensors.items()) if value.ndim > 1)


def _truncated(bench: Bench) -> None:
    path = _stopped(bench)
    path.write_bytes(path.read_bytes()[:-100])
    bench.refused(bench.graphprune(*_TRAIN, "--resume"), "checkpoint")


def _another_run(bench: Bench) -> None:
    _stopped(bench)
    bench.refused(bench.graphprune(*_TRAIN, "--resume", "--batch", "8"), "another|other")


def _unconvertible(bench: Bench) -> None:
    chain = from_tests("support/tiny_models").chain
    bench.write(chain("m = com.example.Odd (h)", domains=', "com.example": 1'), "net.onnx")
    np.savez(bench.folder / "data.npz", x=np.zeros((8, 3, 6, 6), np.float32))
    done = bench.graphprune("finetune", "net.onnx", "--teacher", "net.onnx", "--data", "data.npz", "--device", "cpu")
    bench.refused(done, "Odd|com.example")


def _exploding(bench: Bench) -> None:
    _pruned(bench)
    before = (bench.folder / "net.pruned.onnx").read_bytes()
    done = bench.graphprune(*_TUNE, "--epochs", "2", "--rate", "1e20")
    check(done.code in (0, 1), f"exit code {done.code}: {done.err[-300:]}")
    check((bench.folder / "net.pruned.onnx").read_bytes() == before, "the pruned model was changed")
    for path in bench.folder.glob("*finetuned.onnx"):
        weights = onnx.load(path).graph.initializer
        check(all(np.isfinite(numpy_helper.to_array(each)).all() for each in weights), "weights are no numbers")


def _interrupted(bench: Bench) -> None:
    state = _stopped(bench)
    bench.done(bench.graphprune(*_TRAIN, "--resume"))
    check((bench.folder / "net.trained.onnx").exists(), "nothing was written")
    check(not state.exists(), "the state was not removed")


def _no_device(bench: Bench) -> None:
    _pruned(bench)
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    bench.refused(bench.graphprune(*_TUNE, "--device", "cuda", environment=hidden), "cuda")
    bench.refused(bench.graphprune(*_TUNE, "--device", "abacus", environment=hidden), "abacus")


_OUT_OF_MEMORY = """
import torch
steps = 0
def step(*_, **__):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
torch.Tensor.backward = step
"""


def _out_of_memory(bench: Bench) -> None:
    _pruned(bench)
    done = bench.graphprune(*_TUNE, "--epochs", "1", before=_OUT_OF_MEMORY)
    bench.refused(done, "memory")
    check(not list(bench.folder.glob("*finetuned.onnx")), "a model was written")


def _tuned(bench: Bench) -> Path:
    _pruned(bench)
    bench.done(bench.graphprune(*_TUNE, "--epochs", "2", "--rate", "0.001", "--label-weight", "0"))
    return bench.folder / "net.pruned.finetuned.onnx"


def _faithful(bench: Bench) -> None:
    """Change the graph of a finetuned file: it may differ in weights only."""
    path = _tuned(bench)
    verify = ("verify", "net.onnx", path.name, "net.plan.json")
    done = bench.done(bench.graphprune(*verify))
    check("surgery verified" in done.out, done.out[-300:])
    model = onnx.load(path)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Sigmoid"
    onnx.save(model, path)
    bench.refused(bench.graphprune(*verify), "op_type|Relu|differs", code=101)


ROWS = (
    Row("J1", "checkpoints and samples that are pickles", "refused; nothing is unpickled",
        {"samples": _pickled_samples, "checkpoint": _pickled_state}),
    Row("J2", "states with lost, added, other or doubtful tensors; of another run", "refused", {
        "lost": state(lambda tensors: tensors.pop(_weight(tensors))),
        "added": state(lambda tensors: tensors.update(more=np.zeros(3, np.float32))),
        "another shape": state(lambda tensors: tensors.update({_weight(tensors): np.zeros((2, 2), np.float32)})),
        "NaN": state(lambda tensors: tensors[_weight(tensors)].fill(np.nan)),
        "truncated": _truncated, "another run": _another_run}),
    Row("J3", "an operator that torch does not have", "refused before training", {"own operator": _unconvertible}),
    Row("J4", "losses that explode, trainings that are killed", "the best so far is kept; it goes on",
        {"rate of 1e20": _exploding, "killed": _interrupted}),
    Row("J5", "no GPU, too little memory", "refused with what to do", {"no GPU": _no_device, "memory": _out_of_memory}),
    Row("J6", "a finetuned file that differs in more than weights", "told by verify", {"operator": _faithful}),
)  # fmt: skip
