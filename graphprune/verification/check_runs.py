# SPDX-License-Identifier: Apache-2.0
"""Every file that is going to be written is run once as its users run it, by one function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from graphprune.errors import UsageError, VerificationError, quote
from graphprune.model.children.allowance import allow
from graphprune.model.children.sandbox import ChildError, run_child
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.graph import Graph
from graphprune.model.sizes.usual_shapes import usual_shapes
from graphprune.model.tensors import FLOATS
from graphprune.model.unread import without_unread
from graphprune.model.validity.survey import survey
from graphprune.model.values.random_draws import RANDOM
from graphprune.model.values.shapes import infer
from graphprune.model.widen_floats import HALVES
from graphprune.model.write import save
from graphprune.verification.jumps import DISCRETE
from graphprune.verification.question import MOST_POOLED
from graphprune.verification.room import has_room, room_needed
from graphprune.verification.rounding import ROUNDING
from graphprune.verification.sizes import input_specs, second_sizes
from graphprune.verification.smaller_sizes import count_elements
from graphprune.verification.spec import REFERENCE, SOURCE, WRITTEN, Spec, TensorSpec
from graphprune.verification.staging import stage_file

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.model.load import Model

__all__ = ["check_runs"]

_TIMEOUT = 900.0


def check_runs(
    written: Model,
    original: Model | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    equal: bool = False,
) -> int:
    """Run a file that is going to be written, in a child process, with default options and at two sizes.

    Its outputs are compared with those that it gives without graph optimisation, or with those of the original.

    Parameters
    ----------
    written : Model
    original : Model, optional
        What it was made of: where that does not run, the file need not.
    shapes : mapping of str to tuple of int, optional
        Sizes of inputs; open dimensions get defaults.
    equal : bool
        Hold it to the outputs of the original.

    Returns
    -------
    int
        With how many sizes it ran; 0 if the original does not run with the first ones, none are known, or memory
        does not hold what is run.

    Raises
    ------
    VerificationError
        If it does not run where the original does, or gives other outputs.
    """
    if not has_room(room_needed(written) + (room_needed(original) if original is not None else 0)):
        return 0
    graph = Graph((original or written).proto)
    try:
        given = usual_shapes(original or written, dict(shapes or {}))
    except UsageError:  # an input declares no shape, and none is given
        return 0
    models = [written] if original is None else [original, written]
    dims = _dims(models[0], graph, given)
    allowance, lean = allow(models, dims, _TIMEOUT), count_elements(graph, dims) > MOST_POOLED
    with scratch_folder() as place:

        def lay_out() -> None:
            stage_file(written, place / WRITTEN)
            light = _stage_light(written, place, REFERENCE) or WRITTEN
            source = light
            if original is not None:
                source = _stage_light(original, place, SOURCE) or SOURCE
                if not (place / source).exists():
                    stage_file(original, place / source)
            spec = _spec(written, graph, given)
            spec = replace(spec, source=source, reference=source if equal else light, lean=lean)
            spec.write(place)

        try:
            report = run_child("graphprune.verification.plain_run", place, allowance, lay_out)
        except ChildError as error:
            raise _unusable(written, error.message) from error
    if report["failed"]:
        raise _unusable(written, f"output {quote(report['tensor'])} deviates by {report['error']:.1e}")
    if not report["sizes"] and original is None:
        raise _unusable(written, "it does not run in onnxruntime")
    return int(report["sizes"])


def _stage_light(model: Model, place: Path, name: str) -> str:
    """Stage a model without what nobody reads; return the name of the file, empty if it has no such tensors."""
    light = without_unread(model.proto)
    if light is model.proto:
        return ""
    save(model.replaced(light), place / name)
    return name


def _dims(model: Model, graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of the values that inference knows."""
    return infer(graph, model.tensors.array, shapes).dims


def _unusable(written: Model, what: str) -> VerificationError:
    return VerificationError(
        f"what would be written of {quote(written.name)} cannot be used as the original can: {what}",
        hint="this is a fault of graphprune, please report it; nothing was written",
    )


def _spec(written: Model, graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> Spec:
    """Say what is run, and to what outputs are held: not to values where these are rounded or drawn."""
    parts = survey(written.proto)
    operators = {node.op_type for node in parts.nodes}
    jumps = operators & (DISCRETE | RANDOM)
    rounds = any(name in ROUNDING or name.startswith("QLinear") for name in operators)
    kinds = {value.name: value.type.tensor_type.elem_type for value in written.proto.graph.output}
    coarse = HALVES & {*kinds.values(), *(held.tensor.data_type for held in parts.tensors)}
    grain = float(np.finfo(np.float16).eps) if coarse else 0.0
    inputs = input_specs(graph, shapes)
    return Spec(
        inputs=inputs,
        tensors=[TensorSpec(name, end=True, grain=grain) for name, kind in kinds.items() if kind in FLOATS],
        outputs=list(graph.outputs),
        jumping=list(graph.outputs) if jumps else [],
        plain=all(info.dtype != "bfloat16" for info in inputs.values()),
        plain_values=not (jumps or rounds or "Dropout" in operators),
        grain=grain,
        sizes=second_sizes(graph, shapes),
    )
