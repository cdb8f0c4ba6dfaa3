# SPDX-License-Identifier: Apache-2.0
"""Prune a model that is larger than protobuf and than its memory limit, and measure time and memory of every step.

::

    python tools/bench_large.py                     # a network of 3 GB, made in a temporary folder and deleted
    python tools/bench_large.py --gigabytes 6 --type bfloat16 --verify

The work is done in a process of its own. Its memory is read from ``/proc/self/status`` a hundred times a second:
*anonymous* is what the program itself holds, *resident* includes pages of the mapped data file, which the system
can take back at any time. Both peaks are compared with ``--limit``. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

WIDTH = 8192
TYPES = {
    "float32": (TensorProto.FLOAT, np.dtype(np.float32)),
    "float16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bfloat16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
MIB = 1 << 20


def main() -> int:
    """Make the model, prune it in a child process, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the weights (10^9 bytes)")
    parser.add_argument("--type", choices=sorted(TYPES), default="float32", help="type of the weights")
    parser.add_argument("--flops", type=float, default=0.5, help="share of the FLOPs to keep")
    parser.add_argument("--limit", type=float, default=1.5, help="allowed peak of resident memory (10^9 bytes)")
    parser.add_argument("--verify", action="store_true", help="also run both models in onnxruntime and compare")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return work(options.child, options.flops, verify=options.verify)
    with tempfile.TemporaryDirectory(prefix="graphprune-large-", dir=options.folder) as folder:
        place = Path(folder)
        make_model(place / "large.onnx", int(options.gigabytes * 1e9), options.type)
        command = [sys.executable, __file__, "--child", str(place), "--flops", str(options.flops)]
        subprocess.run([*command, *(["--verify"] if options.verify else [])], check=True)
        return report(json.loads((place / "steps.json").read_text("utf-8")), options.limit)


def make_model(path: Path, size: int, kind: str) -> None:
    """Write a chain of products, with its weights in a data file, a block at a time."""
    elem_type, dtype = TYPES[kind]
    layers = max(2, math.ceil(size / (WIDTH * WIDTH * dtype.itemsize)))
    shapes = [(1024, WIDTH), *[(WIDTH, WIDTH)] * layers, (WIDTH, 16)]
    rng = np.random.default_rng(0)
    graph = onnx.GraphProto(name="large")
    value, offset = "x", 0
    with path.with_suffix(".data").open("wb") as file:
        for number, shape in enumerate(shapes):
            tensor = graph.initializer.add(name=f"w{number}", data_type=elem_type, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            length = shape[0] * shape[1] * dtype.itemsize
            for key, entry in (("location", "large.data"), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(entry))
            for start in range(0, shape[0], 1024):
                block = rng.random((min(1024, shape[0] - start), shape[1]), dtype=np.float32) - np.float32(0.5)
                file.write(np.multiply(block, (12 / shape[0]) ** 0.5).astype(dtype).tobytes())
            offset += length
            last = number == len(shapes) - 1
            graph.node.append(helper.make_node("MatMul", [value, tensor.name], ["y" if last else f"a{number}"]))
            if not last:
                graph.node.append(helper.make_node("Relu", [f"a{number}"], [f"r{number}"]))
                value = f"r{number}"
    graph.input.append(helper.make_tensor_value_info("x", elem_type, ["n", 1024]))
    graph.output.append(helper.make_tensor_value_info("y", elem_type, ["n", 16]))
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    path.write_bytes(ModelProto.SerializeToString(model))


class Meter:
    """Samples the memory of this process in a thread, and notes the peaks of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._peaks = {"RssAnon": 0, "VmRSS": 0}
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._stopped.wait(0.01):
            self._sample()

    def _sample(self) -> None:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            key, _, rest = line.partition(":")
            if key in self._peaks:
                self._peaks[key] = max(self._peaks[key], int(rest.split()[0]) * 1024)

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """Run a function and note what it took."""
        self._peaks = dict.fromkeys(self._peaks, 0)
        start = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - start
        self._sample()
        anonymous, resident = self._peaks["RssAnon"], self._peaks["VmRSS"]
        self.steps.append({"step": name, "seconds": seconds, "anonymous": anonymous, "resident": resident})
        return result

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()


def work(place: Path, share: float, *, verify: bool) -> int:
    """Prune the model in `place`, step by step."""
    meter = Meter()
    graphprune = meter.step("import", lambda: __import__("graphprune"))
    model = meter.step("load", lambda: graphprune.load(place / "large.onnx"))
    analysis = meter.step("analyze", lambda: graphprune.analyze(model))
    plan = meter.step("solve", lambda: graphprune.solve(analysis, graphprune.BudgetRequest("flops", share)))
    pruned = meter.step("apply", lambda: graphprune.apply(analysis, plan))
    if verify:
        found = meter.step("verify", lambda: graphprune.verify(analysis, pruned, plan))
        print(f"{found.status}: error {found.error:.1e}, masking moves the outputs by {100 * found.effect:.2g} %")
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        print(f"the process that runs both models in onnxruntime peaks at {child / 1e9:.2f} GB")
    meter.step("save", lambda: graphprune.save(pruned, place / "pruned.onnx"))
    meter.stop()
    written = sum(file.stat().st_size for file in place.glob("pruned*"))
    before = sum(file.stat().st_size for file in place.glob("large*"))
    result = {"before": before, "written": written, "steps": meter.steps}
    (place / "steps.json").write_text(json.dumps(result), "utf-8")
    return 0


def report(result: dict[str, Any], limit: float) -> int:
    """Print a table; returns 1 if the limit was exceeded."""
    print(f"{result['before'] / 1e9:.2f} GB in, {result['written'] / 1e9:.2f} GB out")
    print(f"{'step':<10}{'seconds':>9}{'anonymous MiB':>16}{'resident MiB':>15}")
    for step in result["steps"]:
        shown = f"{step['anonymous'] / MIB:>16.0f}{step['resident'] / MIB:>15.0f}"
        print(f"{step['step']:<10}{step['seconds']:>9.2f}{shown}")
    peak = max(step["resident"] for step in result["steps"])
    print(f"peak {peak / 1e9:.2f} GB resident, {limit:.2f} GB allowed")
    return int(peak > limit * 1e9)


if __name__ == "__main__":
    sys.exit(main())
