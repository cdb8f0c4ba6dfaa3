# SPDX-License-Identifier: Apache-2.0
"""Observation: shapes that static inference cannot tell are taken from one run in onnxruntime.

Operators of other domains have no inference function in onnx, and everything behind them would
stay whole although onnxruntime knows them well. Shapes that depend on the *data* are not observed:
what one run shows would not hold for the next.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Container
from pathlib import Path
from typing import Any

from onnx import ModelProto, helper

from graphprune.model.bodies import DOMAIN
from graphprune.model.graph import Graph, Node, subgraphs
from graphprune.model.load import Model
from graphprune.model.sandbox import RESULT, ChildError, limit_memory, run_child
from graphprune.model.shapes import Shapes
from graphprune.model.write import save

__all__ = ["observe", "unknown_values"]

DATA_DEPENDENT = frozenset({"Compress", "NonMaxSuppression", "NonZero", "StringSplit", "Unique"})

_TIMEOUT = 300.0


def unknown_values(graph: Graph, shapes: Shapes, inside: Container[str] = ()) -> list[str]:
    """Return values whose shape is not known although it does not depend on data or control flow.

    Parameters
    ----------
    inside : container of str
        Values in bodies of control-flow nodes, which cannot be looked at from outside.
    """
    unknown: list[str] = []
    opaque: set[str] = set()
    for node in graph.nodes:
        missing = [name for name in node.outputs if name and name not in shapes.dims]
        if _hides(node) or (node.domain == DOMAIN and missing) or any(name in opaque for name in node.inputs):
            opaque.update(name for name in node.outputs if name)
        else:
            unknown.extend(name for name in missing if name not in inside)
    # A missing output that nobody reads (the mask of an old Dropout) is not worth a run.
    return unknown if any(name in graph.consumers for name in unknown) else []


def _hides(node: Node) -> bool:
    return node.op_type in DATA_DEPENDENT or any(True for _ in subgraphs(node.proto))


def observe(model: Model, graph: Graph, shapes: Shapes, names: list[str]) -> bool:
    """Run the model once and add the shapes of these values to `shapes`.

    Parameters
    ----------
    model : Model
        What runs: `graph` with the bodies of control-flow nodes where they belong.
    graph : Graph

    Returns
    -------
    bool
        Whether the run succeeded; where it did not, the values stay unknown and freeze what meets them.
    """
    exposed = ModelProto()
    exposed.CopyFrom(model.proto)
    present = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    with tempfile.TemporaryDirectory(prefix="graphprune-observe-") as folder:
        place = Path(folder)
        save(model.replaced(exposed), place / "model.onnx")
        spec = {"names": names, "inputs": {name: _input(graph, shapes, name) for name in graph.inputs}}
        (place / "spec.json").write_text(json.dumps(spec), "utf-8")
        try:
            observed = run_child("graphprune.model.observation", place, _TIMEOUT)
        except ChildError:
            return False
    for name, (dims, dtype) in observed.items():
        shapes.dims[name] = tuple(dims)
        shapes.dtypes[name] = helper.np_dtype_to_tensor_dtype(_dtype(dtype))
    return True


def _input(graph: Graph, shapes: Shapes, name: str) -> dict[str, Any]:
    elem_type = graph.inputs[name].tensor_type.elem_type
    return {"shape": shapes.dims.get(name, ()), "dtype": str(helper.tensor_dtype_to_np_dtype(elem_type))}


def _dtype(name: str) -> Any:
    import numpy as np

    return np.dtype(name)


def main(folder: str) -> int:
    """Run the model in the folder and write the shapes of the wanted values (in the child process)."""
    import numpy as np
    import onnxruntime as ort

    limit_memory()
    place = Path(folder)
    spec = json.loads((place / "spec.json").read_text("utf-8"))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(place / "model.onnx"), options, providers=["CPUExecutionProvider"])
    feeds = {name: np.zeros(info["shape"], dtype=np.dtype(info["dtype"])) for name, info in spec["inputs"].items()}
    values = zip(spec["names"], session.run(spec["names"], feeds), strict=True)
    shown = {name: (value.shape, str(value.dtype)) for name, value in values if isinstance(value, np.ndarray)}
    (place / RESULT).write_text(json.dumps(shown), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
