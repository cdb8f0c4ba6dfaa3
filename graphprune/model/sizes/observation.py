# SPDX-License-Identifier: Apache-2.0
"""Observation: shapes that static inference cannot tell are taken from one run in onnxruntime.

Operators of other domains have no inference function in onnx, and everything behind them would
stay whole although onnxruntime knows them well. Shapes that depend on the *data* are not observed:
what one run shows would not hold for the next.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx import ModelProto, helper

from graphprune.model.children.allowance import allow
from graphprune.model.children.sandbox import RESULT, ChildError, enter_sandbox, run_child, unless_exhausted
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.graph import Graph, Node, subgraphs
from graphprune.model.load import Model
from graphprune.model.unread import without_unread
from graphprune.model.values.bodies import DOMAIN
from graphprune.model.values.shapes import Shapes
from graphprune.model.write import save

__all__ = ["NoneRunsError", "RunShapes", "Told", "observe", "unknown_values"]

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


@dataclass(frozen=True)
class RunShapes:
    """What a run shows.

    Attributes
    ----------
    choice : int
        Which of the input shapes it took; the others before that do not run.
    dims, dtypes : dict
        Shapes and `TensorProto` data types by value name.
    """

    choice: int
    dims: dict[str, tuple[int, ...]]
    dtypes: dict[str, int]


@dataclass(frozen=True)
class Told:
    """What is known of runs before they are done.

    Attributes
    ----------
    lengths : sequence of mappings
        For each of the input shapes, what integers have to be by input (:mod:`graphprune.model.sizes.lengths`).
    dims : mapping of str to tuple of int
        Shapes of values, by which it is told how much memory and time a run may take.
    """

    lengths: Sequence[Mapping[str, int]] = ()
    dims: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class NoneRunsError(Exception):
    """The model can be opened, but runs with none of the shapes."""


def observe(
    model: Model,
    graph: Graph,
    choices: Sequence[Mapping[str, tuple[int, ...]]],
    names: Sequence[str],
    told: Told | None = None,
) -> RunShapes | None:
    """Run the model with the first of several input shapes that it takes, and look at the shapes of values.

    Parameters
    ----------
    model : Model
        What runs: `graph` with the bodies of control-flow nodes where they belong.
    choices : sequence of mappings
        Shapes by input.
    names : sequence of str
        The values looked at.
    told : Told, optional
        What else is known.

    Returns
    -------
    RunShapes or None
        None where onnxruntime does not open the model or does not finish, which tells nothing.

    Raises
    ------
    NoneRunsError
        If every run failed; its text says how the first did.
    UnsafeModelError
        If a run takes more than it may.
    """
    try:
        return _observe(model, graph, choices, names, told or Told())
    except ChildError:
        return None


def _observe(
    model: Model,
    graph: Graph,
    choices: Sequence[Mapping[str, tuple[int, ...]]],
    names: Sequence[str],
    told: Told,
) -> RunShapes:
    if any(kind.WhichOneof("value") != "tensor_type" for kind in graph.inputs.values()):
        raise ChildError("only tensors are made up as inputs")
    exposed = ModelProto()
    exposed.CopyFrom(without_unread(model.proto))
    present = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    with scratch_folder() as place:
        save(model.replaced(exposed), place / "model.onnx")
        inputs = [
            {name: {**_input(graph, choice.get(name, ()), name), "value": values.get(name, 0)} for name in graph.inputs}
            for choice, values in zip(choices, told.lengths or [{}] * len(choices), strict=True)
        ]
        (place / "spec.json").write_text(json.dumps({"names": list(names), "inputs": inputs}), "utf-8")
        observed = run_child(
            "graphprune.model.sizes.observation", place, allow([model], {**choices[-1], **told.dims}, _TIMEOUT)
        )
    if observed["choice"] is None:
        raise NoneRunsError(observed["said"])
    shown: dict[str, tuple[list[int], str]] = observed["values"]
    return RunShapes(
        observed["choice"],
        {name: tuple(dims) for name, (dims, _) in shown.items()},
        {name: helper.np_dtype_to_tensor_dtype(_dtype(dtype)) for name, (_, dtype) in shown.items()},
    )


def _input(graph: Graph, shape: tuple[int, ...], name: str) -> dict[str, Any]:
    elem_type = graph.inputs[name].tensor_type.elem_type
    return {"shape": shape, "dtype": str(helper.tensor_dtype_to_np_dtype(elem_type))}


def _dtype(name: str) -> Any:
    import numpy as np

    return np.dtype(name)


def main(folder: str) -> int:
    """Run the model in the folder and write the shapes of the wanted values (in the child process)."""
    import numpy as np
    import onnxruntime as ort

    enter_sandbox()
    place = Path(folder)
    spec = json.loads((place / "spec.json").read_text("utf-8"))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(str(place / "model.onnx"), options, providers=["CPUExecutionProvider"])
    first = ""
    for choice, inputs in enumerate(spec["inputs"]):
        feeds = {
            name: np.full(info["shape"], info.get("value", 0), dtype=np.dtype(info["dtype"]))
            for name, info in inputs.items()
        }
        try:
            values = session.run(spec["names"], feeds)
        except Exception as error:  # whatever onnxruntime raises: this shape is not taken
            first = first or str(unless_exhausted(error))
            continue
        named = zip(spec["names"], values, strict=False)
        shown = {name: (value.shape, str(value.dtype)) for name, value in named if isinstance(value, np.ndarray)}
        (place / RESULT).write_text(json.dumps({"choice": choice, "values": shown}), "utf-8")
        return 0
    (place / RESULT).write_text(json.dumps({"choice": None, "said": first}), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
