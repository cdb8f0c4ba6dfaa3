# SPDX-License-Identifier: Apache-2.0
"""Evaluation of constants in a child process: what this process does not compute, because nothing bounds the work.

A position embedding that is resized, an einsum of two weights or the output of an operator of another domain is
computed by onnxruntime, with its own kernels, under limits of processor time and memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
from onnx import ModelProto, ValueInfoProto, numpy_helper

from graphprune.array_types import Array
from graphprune.errors import UnsafeModelError
from graphprune.model.children.allowance import Allowance
from graphprune.model.children.sandbox import RESULT, ChildError, enter_sandbox, run_child
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.graph import Graph, Node

__all__ = ["Outside"]

_SECONDS: Final = 2
_ALL_SECONDS: Final = 3.0
_PATIENCE: Final = 60.0
"""Seconds on the clock, of which a busy machine may give a child few."""
_LEAST: Final = 0.1
"""Seconds that a child counts at least, where the system does not tell how long it took."""
_FLOOR: Final = 500 << 20
_TIMES: Final = 4
"""Bytes of memory for onnxruntime, and for each byte of an operand."""
_MOST_OPERANDS: Final = 1 << 28
"""Bytes that the operands of an expression may have; more would not fit into a message."""


@dataclass
class Outside:
    """Computes constants in child processes, as long as their time together is below a limit.

    Attributes
    ----------
    left : float
        Seconds of processor time that are left.
    """

    left: float = _ALL_SECONDS

    def compute(self, graph: Graph, nodes: Sequence[Node], operands: Mapping[str, Array], name: str) -> Array | None:
        """Return the value `name` that `nodes` make of `operands`; None where that fails or exceeds a limit."""
        size = sum(value.nbytes for value in operands.values())
        if self.left <= 0 or size > _MOST_OPERANDS:
            return None
        allowance = Allowance(_PATIENCE, min(_SECONDS, ceil(self.left)), _FLOOR + _TIMES * size)
        before = _children()
        try:
            with scratch_folder() as place:
                (place / "model.onnx").write_bytes(_expression(graph, nodes, operands, name).SerializeToString())
                run_child("graphprune.model.evaluation.constant_evaluation", place, allowance)
                return np.asarray(np.load(place / "value.npy", allow_pickle=False))
        except (ChildError, UnsafeModelError, OSError, ValueError, TypeError):
            return None
        finally:
            self.left -= max(_children() - before, _LEAST)


def _children() -> float:
    """Return the processor time of all child processes so far, which no load of the machine makes longer."""
    times = os.times()
    return times.children_user + times.children_system


def _expression(graph: Graph, nodes: Sequence[Node], operands: Mapping[str, Array], name: str) -> ModelProto:
    """Return a model of these nodes alone."""
    proto = ModelProto(ir_version=max(graph.proto.ir_version, _FREE_INITIALIZERS))
    proto.opset_import.extend(graph.proto.opset_import)
    proto.graph.name = "expression"
    proto.graph.node.extend(node.proto for node in nodes)
    proto.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in operands.items())
    proto.graph.output.append(ValueInfoProto(name=name))
    return proto


_FREE_INITIALIZERS: Final = 4  # the IR version since which an initializer need not be a graph input


def main(folder: str) -> int:
    """Compute the expression in the folder (in the child process)."""
    enter_sandbox()
    import onnxruntime as ort

    place = Path(folder)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(place / "model.onnx"), options, providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {})
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc" or value.nbytes > _MOST_OPERANDS:
        return 1
    np.save(place / "value.npy", value, allow_pickle=False)
    (place / RESULT).write_text("{}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
