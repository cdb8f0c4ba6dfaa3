# SPDX-License-Identifier: Apache-2.0
"""How the time of convolutions depends on their width, in several runtimes: what the kinds of ``--round-to`` rest on.

::

    python tools/width_steps.py --page docs/latency.md

Chains of four convolutions of one width run in turn, on a map of 28 x 28, one thread; a table says what each width
takes by what 64 channels take in the same rounds (the median over the rounds). Only ratios within one row mean
something: the machine may be busy. OpenVINO is measured a second time with no more than AVX2 (`ONEDNN_MAX_CPU_ISA`,
an environment variable that its kernels read). Takes a minute or two.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
from pathlib import Path
from unittest.mock import patch

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from page_sections import replace_section
from zoo_table import machine

from graphprune.export.deploy import installed
from graphprune.export.runtime import make_runtime
from graphprune.export.runtime_stopwatch import stopwatch_for

HEADING = "## Widths that runtimes like"
WIDTHS = (40, 44, 47, 48, 49, 50, 52, 56, 57, 60, 63, 64, 65, 68, 72, 73, 80)
WHOLE = 64
SIDE, ENDS, DEPTH = 28, 16, 4
LAYERS = {"3 x 3": (3, False), "1 x 1": (1, False), "depthwise 3 x 3": (3, True)}
RUNTIMES = ("onnxruntime", "openvino", "mnn", "ncnn", "opencv")
NARROWER = {"openvino": ("AVX2", {"ONEDNN_MAX_CPU_ISA": "AVX2"})}
"""Runtimes that can be held to a narrower instruction set, and by what in the environment of their process."""


def chain(width: int, kernel: int, *, depthwise: bool) -> bytes:
    """Return a network of layers of one width, between two of 1 x 1 that bring it there and back."""
    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for number in range(DEPTH + 2):
        first, last = number == 0, number == DEPTH + 1
        side = 1 if first or last else kernel
        group = width if depthwise and not (first or last) else 1
        shape = (ENDS if last else width, (ENDS if first else width) // group, side, side)
        weights.append(numpy_helper.from_array(random.normal(0, 0.05, shape).astype(np.float32), f"w{number}"))
        weights.append(numpy_helper.from_array(np.zeros(shape[0], np.float32), f"b{number}"))
        inputs = [name, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[side // 2] * 4, group=group))
        name = "y" if last else f"r{number}"
        nodes.append(helper.make_node("Relu", [f"c{number}"], [name]))
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, ENDS, SIDE, SIDE]) for end in "xy"]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def row(runtime: str, layer: str, held_to: str = "") -> str:
    """Measure one kind of layer in one runtime; return a line of the table."""
    kernel, depthwise = LAYERS[layer]
    models = [chain(width, kernel, depthwise=depthwise) for width in WIDTHS]
    rounds = stopwatch_for(runtime).rounds(models, {"x": (1, ENDS, SIDE, SIDE)})
    whole = WIDTHS.index(WHOLE)
    ratios = [statistics.median(one[at] / one[whole] for one in rounds) for at in range(len(WIDTHS))]
    name = f"{runtime}, {held_to}" if held_to else runtime
    return f"| {name} | {layer} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |"


def main() -> None:
    """Measure and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtimes", help="names with commas; by default all that are installed")
    parser.add_argument("--page", type=Path, help=f"the page whose section {HEADING!r} is replaced")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    known = installed()
    names = given.runtimes.split(",") if given.runtimes else [name for name in RUNTIMES if name in known]
    lines = [f"| runtime | layer | {' | '.join(map(str, WIDTHS))} |", f"|---|---|{'--:|' * len(WIDTHS)}"]
    print(*lines, sep="\n", flush=True)
    for runtime in names:
        for layer in LAYERS:
            lines.append(row(runtime, layer))
            print(lines[-1], flush=True)
        held_to, variables = NARROWER.get(runtime, ("", {}))
        with patch.dict(os.environ, variables):
            for layer in LAYERS if held_to else ():
                lines.append(row(runtime, layer, held_to))
                print(lines[-1], flush=True)
    if given.page:
        replace_section(given.page, HEADING, "\n".join([heading(names), "", *lines, "", READING]))


def heading(names: list[str]) -> str:
    """Say what was measured, when and where."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    versions = ", ".join(f"{name} {make_runtime(name).version()}" for name in names)
    return "\n".join(
        [
            f"Time of convolutions by that of {WHOLE} channels, in the same rounds: chains of {DEPTH} layers on a",
            f"map of {SIDE} x {SIDE}.",
            f"`python tools/width_steps.py --page docs/latency.md`, {today}, {machine()},",
            f"shared with other work, one thread; {versions}.",
            "Only ratios within a row mean something.",
        ]
    )


READING = """\
- **onnxruntime** leaves its blocked kernels at widths that are no multiple of 4, most of all where a
  convolution is depthwise; among multiples of 4 the time goes by `ceil(C / 16)`: the kind `avx512`.
- **OpenVINO** begins a block every 16 channels (48 to 49, 64 to 65), with AVX2 every 8; within a block each
  channel costs a little, and no width is a trap. The kinds `openvino` and `openvino-avx2`: multiples of 16, or
  of 8, where there are four of them, and finer ones in narrower groups.
- **MNN** goes by multiples of 4, in proportion: the kind `mnn` allows all of these.
- **ncnn** packs 16, 8 or 4 channels, and is slow where none of these divides the width; **OpenCV** goes by
  multiples of 8. Neither has a kind of its own: `auto` is that of the processor there, whose multiples of 16
  are no worse in either than what lies beside them."""


if __name__ == "__main__":
    main()
