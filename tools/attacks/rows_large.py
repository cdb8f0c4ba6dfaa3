# SPDX-License-Identifier: Apache-2.0
"""Inputs of several gigabytes, which take no room on the disk."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from attacks.bench import Bench, check
from attacks.processes import Limits

__all__ = ["past_two_gib"]

_ROWS, _WIDTH = 9 * 2**16, 1024


def past_two_gib(bench: Bench) -> None:
    """Prune a table of 2.4 GB in a data file with holes; its budget needs few of its bytes."""
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["rows"]),
        helper.make_node("MatMul", ["rows", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "last"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
    )
    sizes = {"table": (_ROWS, _WIDTH), "first": (_WIDTH, 64), "last": (64, 8)}
    start = 0
    with (bench.folder / "m.data").open("wb") as file:
        for name, dims in sizes.items():
            size = 4 * dims[0] * dims[1]
            tensor = graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=dims)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": "m.data", "offset": str(start), "length": str(size)}.items():
                tensor.external_data.add(key=key, value=value)
            file.truncate(start + size)
            start += size
    model = helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 17)])
    bench.write(model)
    limits = Limits(processor_seconds=300, seconds=600, most_bytes=10 << 30)
    done = bench.solve("m.onnx", "--params", "1", limits=limits)
    bench.done(done)
    check((bench.folder / "m.pruned.onnx").exists(), "nothing was written")
