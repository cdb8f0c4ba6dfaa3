# SPDX-License-Identifier: Apache-2.0
"""Do two models with the same signature compute the same? Both run on random inputs in a child process.

For what only rewrites a graph (`graphprune normalize`): every output must have the kind, type and shape of the
original's, and real numbers must agree to rounding. Integers may hang on a comparison of real numbers, and are not
compared. Neither is what hangs on random numbers, but where these only say what a `Dropout` drops: copies that drop
nothing are compared as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto, helper

from graphprune.analysis.analysis import Analysis
from graphprune.errors import VerificationError
from graphprune.model.children.allowance import allow
from graphprune.model.children.sandbox import RESULT, ChildError, enter_sandbox, run_child, unless_exhausted
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.load import Model
from graphprune.model.write import save
from graphprune.verification.jumps import discrete_names, random_names, stand_still

__all__ = ["check_same_outputs"]

_TIMEOUT = 300.0
_DRAWS = 2
_TOLERANCE = 1e-4
"""Largest difference of real numbers, in units of the largest value of an output."""


def check_same_outputs(analysis: Analysis, rewritten: Model) -> None:
    """Raise unless a rewritten model opens and gives what the original gives.

    Parameters
    ----------
    analysis : Analysis
        Of the original.

    Raises
    ------
    VerificationError
        If it does not. An original that onnxruntime does not run is compared with nothing.
    """
    drawn, discrete = random_names(analysis), discrete_names(analysis)
    _compare_in_child(analysis, analysis.model, rewritten, drawn)
    if not drawn <= discrete and not analysis.model.proto.functions:
        before, after = (model.replaced(_standing(model.proto)) for model in (analysis.model, rewritten))
        _compare_in_child(analysis, before, after, drawn & discrete)


def _standing(proto: ModelProto) -> ModelProto:
    """Return a copy that drops nothing."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    stand_still(copy)
    return copy


def _compare_in_child(analysis: Analysis, original: Model, rewritten: Model, drawn: Collection[str]) -> None:
    """Compare two models, but for the values of outputs that are drawn at random."""
    graph, inputs = analysis.graph, analysis.input_shapes
    tensors = [name for name, kind in graph.inputs.items() if kind.WhichOneof("value") == "tensor_type"]
    spec = {
        name: {
            "shape": inputs.get(name, ()),
            "dtype": str(helper.tensor_dtype_to_np_dtype(graph.inputs[name].tensor_type.elem_type)),
        }
        for name in tensors
    }
    allowance = allow([original, rewritten], analysis.shapes.dims, _TIMEOUT)
    with scratch_folder() as place:
        for name, model in (("original", original), ("rewritten", rewritten)):
            (place / name).mkdir()
            save(model.replaced(model.proto), place / name / "model.onnx")
        runs = len(tensors) == len(graph.inputs)
        told = {"inputs": spec, "runs": runs, "drawn": sorted(set(graph.outputs) & set(drawn))}
        (place / "spec.json").write_text(json.dumps(told), "utf-8")
        try:
            said = run_child("graphprune.verification.same_outputs", place, allowance)["said"]
        except ChildError as error:
            raise VerificationError(f"the rewritten model could not be compared: {error.message}") from error
    if said:
        raise VerificationError(
            f"the rewritten model is not the original: {said}",
            hint="nothing was written; this is a fault of graphprune, please report it",
        )


def main(folder: str) -> int:
    """Compare the two models in the folder (in the child process)."""
    enter_sandbox()
    place = Path(folder)
    (place / RESULT).write_text(json.dumps({"said": _compare(place)}), "utf-8")
    return 0


def _compare(place: Path) -> str:
    """Return the first difference, empty where there is none."""
    import numpy as np

    spec = json.loads((place / "spec.json").read_text("utf-8"))
    try:
        original = _session(place / "original")
    except Exception as error:  # onnxruntime does not know an operator: there is nothing to compare with
        unless_exhausted(error)
        return ""
    try:
        rewritten = _session(place / "rewritten")
    except Exception as error:  # onnxruntime raises classes of its own
        return f"it does not open: {unless_exhausted(error)}"
    for seed in range(_DRAWS if spec["runs"] else 0):
        random = np.random.default_rng(seed)
        feeds = {name: _random(random, info) for name, info in spec["inputs"].items()}
        try:
            wanted = original.run(None, feeds)
        except Exception as error:  # nor does it run
            unless_exhausted(error)
            return ""
        try:
            given = rewritten.run(None, feeds)
        except Exception as error:  # as above
            return f"it does not run: {unless_exhausted(error)}"
        for name, one, other in zip((value.name for value in original.get_outputs()), wanted, given, strict=True):
            said = _difference(one, other, values=name not in spec["drawn"])
            if said:
                return f"output {name!a} {said}"
    return ""


def _session(folder: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def _random(random: Any, info: Mapping[str, Any]) -> Any:
    import numpy as np

    dtype = np.dtype(info["dtype"])
    if dtype.kind in "iub":
        return random.integers(0, 2, info["shape"]).astype(dtype)
    if dtype.kind in "OSU":
        return np.full(info["shape"], "a", dtype=object)
    return random.standard_normal(info["shape"]).astype(dtype)


def _difference(one: Any, other: Any, *, values: bool = True) -> str:
    """Return how two results differ: arrays, lists of them (sequences) or nothing (an empty optional).

    Without `values`, only their types and shapes count.
    """
    import numpy as np

    if type(one) is not type(other):
        return f"is a {type(other).__name__} instead of a {type(one).__name__}"
    if isinstance(one, list):
        if len(one) != len(other):
            return f"has {len(other)} elements instead of {len(one)}"
        pairs = zip(one, other, strict=True)
        return next(filter(None, (_difference(first, second, values=values) for first, second in pairs)), "")
    if not isinstance(one, np.ndarray):
        return ""
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"is {other.dtype} of shape {other.shape} instead of {one.dtype} of shape {one.shape}"
    if not values or one.dtype.kind != "f" or not one.size:
        return ""
    first, second = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)):
        return "is not finite in other places"
    scale = float(np.abs(first[finite]).max(initial=0.0)) or 1.0
    grain = max(_TOLERANCE, 8 * float(np.finfo(one.dtype).eps))
    apart = float(np.abs(first[finite] - second[finite]).max(initial=0.0)) / scale
    return f"differs by {apart:.1e} of its largest value" if apart > grain else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
