# SPDX-License-Identifier: Apache-2.0
"""What share of the time of a run single nodes take: the size of work for which nobody has a formula.

The model runs in a child process with onnxruntime's profiler, without graph optimisation, so that every node is
still there. Shares are measured on whatever else this machine does at that time: they are for people to read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from onnx import ModelProto, helper

from graphprune.model.children.allowance import allow
from graphprune.model.children.sandbox import RESULT, ChildError, enter_sandbox, run_child
from graphprune.model.files.main_memory import main_memory
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.load import Model
from graphprune.model.write import file_bytes, save

__all__ = ["time_shares"]

_TIMEOUT: Final = 60.0
_RUNS: Final = 3
_LARGEST: Final = 8
"""Of main memory, models up to this fraction are run only to see how long they take."""
_KERNEL: Final = "_kernel_time"


def time_shares(
    model: Model, inputs: Mapping[str, tuple[int, ...]], lengths: Mapping[str, int], labels: Collection[str]
) -> dict[str, float]:
    """Return which share of the time of all nodes some take, by label; empty where the model does not run.

    Parameters
    ----------
    inputs : mapping of str to tuple of int
        Sizes of all graph inputs.
    lengths : mapping of str to int
        What integers have to be, by input (:mod:`graphprune.model.sizes.lengths`).
    labels : collection of str
        Nodes of the main graph by name, or where they have none by their first output.
    """
    if _LARGEST * file_bytes(model) > main_memory():
        return {}
    named = ModelProto()
    named.CopyFrom(model.proto)
    for node in named.graph.node:
        node.name = node.name or next((name for name in node.output if name), "")
    allowance = allow([model], inputs, _TIMEOUT)
    with scratch_folder() as place:
        save(model.replaced(named), place / "model.onnx")
        fed = {
            value.name: (inputs[value.name], _dtype(value.type.tensor_type.elem_type), lengths.get(value.name, 0))
            for value in named.graph.input
            if value.name in inputs
        }
        (place / "spec.json").write_text(json.dumps(fed), "utf-8")
        try:
            times: dict[str, int] = run_child("graphprune.model.node_times", place, allowance)
        except ChildError:
            return {}
    whole = sum(times.get(node.name, 0) for node in named.graph.node)
    return {label: times[label] / whole for label in labels if label in times and whole}


def _dtype(elem_type: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(elem_type))


def main(folder: str) -> int:
    """Run the model in the folder, and write how many microseconds each node took in the fastest run."""
    enter_sandbox()

    import numpy as np
    import onnxruntime as ort

    place = Path(folder)
    spec = json.loads((place / "spec.json").read_text("utf-8"))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(place / "profile")
    session = ort.InferenceSession(str(place / "model.onnx"), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {
        name: random.standard_normal(shape).astype(dtype)
        if np.dtype(dtype).kind == "f"
        else np.full(shape, value, dtype=np.dtype(dtype))
        for name, (shape, dtype, value) in spec.items()
    }
    for _ in range(_RUNS):
        session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    (place / RESULT).write_text(json.dumps(_fastest(events)), "utf-8")
    return 0


def _fastest(events: list[dict[str, Any]]) -> dict[str, int]:
    """Return the shortest time of each node."""
    times: dict[str, int] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            label, took = name.removesuffix(_KERNEL), int(event["dur"])
            times[label] = min(times.get(label, took), took)
    return times


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
