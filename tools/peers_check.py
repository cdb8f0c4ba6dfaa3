# SPDX-License-Identifier: Apache-2.0
"""One network through one pruner. `tools/peers.py` runs this file in a process of its own; it prints a JSON record.

::

    python tools/peers_check.py export resnet18 resnet18.onnx
    python tools/peers_check.py graphprune resnet18 resnet18.onnx
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphprune import api
from graphprune.errors import BudgetUnreachableError, NothingToPruneError
from graphprune.solvers.moves.levels import levels

ASKED = 0.5
STRONGEST = (0.99, 0.98, 0.95, 0.9, 0.7)
"""Shares of channels to remove, tried for the reach of tools that have no budget."""
STEPS = 40


@dataclass
class Record:
    """What one tool made of one network.

    `reach` is the smallest share of the FLOPs that it gets to, `ratio` what it gave when asked for half. `result` says
    what became of its result for half: "exact" (equal to the masked original), "runs", "unchanged", "unreachable" or
    "failed". `cpu` are the CPU seconds to the result for half, without verification.
    """

    name: str
    tool: str
    result: str = "failed"
    reach: float | None = None
    ratio: float | None = None
    cpu: float | None = None
    check_cpu: float | None = None
    error: float | None = None
    groups: int | None = None
    note: str = ""


def prune_with_graphprune(record: Record, file: Path, folder: Path) -> None:
    """Prune to half of the FLOPs and verify the file that was written."""
    with _timed(record):
        analysis = api.analyze(api.load(file))
    sizes = analysis.cost.sizes
    narrowest = [levels(group.size, group.channels, "auto", relaxed=True)[0] for group in analysis.groups]
    record.groups = len(analysis.groups)
    record.reach = analysis.cost.flops(np.array(narrowest, dtype=np.int64)) / analysis.cost.flops(sizes)
    record.note = "; ".join(f"{entry.kind} {entry.flops / analysis.cost.flops(sizes):.3f}" for entry in analysis.frozen)
    target = folder / "pruned.onnx"
    with _timed(record):
        try:
            plan = api.solve(analysis, api.BudgetRequest("flops", ASKED))
        except (BudgetUnreachableError, NothingToPruneError):
            record.result = "unreachable"
            return
        api.save(api.apply(analysis, plan), target)
    record.ratio = plan.budget.after / plan.budget.before
    found = api.verify(analysis, api.load(target), plan)
    record.error = found.error
    record.result = "exact" if found.status == "verified" else found.status
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    record.check_cpu = used.ru_utime + used.ru_stime


def prune_with_torch_pruning(record: Record, file: Path, folder: Path) -> None:
    """Prune the torch module step by step to half of the FLOPs, as its examples do; nothing is said per network."""
    del file, folder
    import torch
    from peers_models import build, image

    model, sample = build(record.name), image(record.name)
    whole, shape = _torch_flops(model, sample), tuple(model(sample).shape)
    with _timed(record):
        pruned = copy.deepcopy(model)
        pruner = _torch_pruner(pruned, sample, 1.0, STEPS)
        ratio = 1.0
        for _ in range(STEPS - 1):
            pruner.step()
            ratio = _torch_flops(pruned, sample) / whole
            if ratio <= ASKED:
                break
    with torch.no_grad():
        same = tuple(pruned(sample).shape) == shape
    record.ratio = ratio
    record.result = ("unchanged" if ratio == 1 else "runs") if same else "failed"
    record.note = "" if same else "the output has another shape"
    record.reach = _torch_reach(model, sample, whole)


def _torch_pruner(model: Any, sample: Any, share: float, steps: int) -> Any:
    """Return a pruner for all layers but those that make the output, found by their width."""
    import torch
    import torch_pruning as tp

    with torch.no_grad():
        classes = model(sample).shape[1]
    last = [m for m in model.modules() if classes in (getattr(m, "out_features", 0), getattr(m, "out_channels", 0))]
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    return tp.pruner.BasePruner(
        model, sample, importance=importance, pruning_ratio=share, iterative_steps=steps, ignored_layers=last[-1:]
    )


def _torch_reach(model: Any, sample: Any, whole: int) -> float | None:
    """Return the smallest share of the FLOPs at which the network still runs; more is not always less."""
    found = []
    for share in STRONGEST:
        pruned = copy.deepcopy(model)
        try:
            _torch_pruner(pruned, sample, share, 1).step()
            found.append(_torch_flops(pruned, sample) / whole)
        except Exception:  # noqa: S112 - whatever it raises, the next share is tried
            continue
    return min(found, default=None)


def _torch_flops(model: Any, sample: Any) -> int:
    """Count the FLOPs of a torch module by running it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(sample)
    return int(counter.get_total_flops())


def prune_with_onnxsim(record: Record, file: Path, folder: Path) -> None:
    """Simplify, which folds BatchNormalization, then remove half of the channels; it knows no budget."""
    import onnxsim

    whole = _onnx_flops(file)
    target = folder / "pruned.onnx"
    with _timed(record):
        simplified, valid = onnxsim.simplify(onnx.load(file))
        onnx.save(onnxsim.apply_structured_pruning(simplified, sparsity=ASKED), target)
    record.note = "" if valid else "its own check of the simplified model failed"
    record.ratio = _onnx_flops(target) / whole
    complaint = _complaint(target)
    record.result = "failed" if complaint else "unchanged" if record.ratio == 1 else "runs"
    record.note = complaint or record.note
    reached = []
    for share in (*STRONGEST, ASKED):
        onnx.save(onnxsim.apply_structured_pruning(simplified, sparsity=share), target)
        if _complaint(target) is None:
            reached.append(_onnx_flops(target) / whole)
    record.reach = min(reached, default=None)


def _onnx_flops(file: Path) -> int:
    """Count the FLOPs of a file."""
    cost = api.analyze(api.load(file)).cost
    return cost.flops(cost.sizes)


def _complaint(file: Path) -> str | None:
    """Return what onnxruntime says against a file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (value,) = session.get_inputs()
        session.run(None, {value.name: np.zeros(value.shape, dtype=np.float32)})
    except Exception as error:  # onnxruntime raises what it likes
        return str(error).strip().splitlines()[0][:200]
    return None


TOOLS: dict[str, Callable[[Record, Path, Path], None]] = {
    "graphprune": prune_with_graphprune,
    "torch-pruning": prune_with_torch_pruning,
    "onnxsim": prune_with_onnxsim,
}


@contextmanager
def _timed(record: Record) -> Iterator[None]:
    """Add the CPU seconds of a block to a record."""
    started = time.process_time()
    try:
        yield
    finally:
        record.cpu = (record.cpu or 0.0) + time.process_time() - started


def main() -> None:
    """Run one job."""
    parser = argparse.ArgumentParser(description="Prune one torchvision network with one tool.")
    parser.add_argument("job", choices=["export", *TOOLS])
    parser.add_argument("name")
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.job == "export":
        from peers_models import export

        export(options.name, options.file)
        return
    record = Record(options.name, options.job)
    try:
        TOOLS[options.job](record, options.file, options.file.parent)
    except Exception as error:  # a tool may raise anything; all of it is a finding
        record.result, text = "failed", str(error).strip() or "no message"
        record.note = f"{type(error).__name__}: {text.splitlines()[0][:200]}"
    print(json.dumps(asdict(record)), flush=True)


if __name__ == "__main__":
    main()
