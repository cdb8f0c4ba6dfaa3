# SPDX-License-Identifier: Apache-2.0
"""Verification compares the pruned model with the masked original.

Both run in onnxruntime, in a child process with limits (a model is untrusted input), without
graph optimisation. Outputs and all intermediate tensors that both have are compared on their
kept slices, each against its own noise floor: how far the masked original itself moves when its
input changes by rounding.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, TypeProto, helper

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Mask
from graphprune.errors import GraphPruneError, UnsupportedModelError, VerificationError, quote
from graphprune.labels.adapt import whole
from graphprune.model.load import Model
from graphprune.model.sandbox import ChildError, run_child
from graphprune.model.survey import survey
from graphprune.model.tensors import FLOATS
from graphprune.model.widen_floats import NARROW, widened
from graphprune.model.write import save
from graphprune.notebook import html_table
from graphprune.report import text
from graphprune.surgery.slices import Kept, Slices
from graphprune.verification.limits import RELATIVE
from graphprune.verification.oracle import (
    Oracle,
    build_oracle,
    discrete_names,
    force_branches,
    force_inputs,
    pruned_branches,
)
from graphprune.verification.rounding import OWN, behind, cut_kind, cut_roundings, roundings

__all__ = ["EXACT", "Verification", "verify_equal", "verify_pruned", "verify_widened"]


_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_WIDENED = "compared as float32 copies of both models: onnxruntime cannot run all operators in their own type here"
_MOVES_NOTHING = 1e-3
_COARSE = 1e-6
_CHAOTIC = (
    "this network makes much of rounding: tensors were held to how far a change of its input by 1e-6 moves them, "
    "and not at all where that is far"
)
EXACT = 1e-5
"""What is allowed between tensors that should be the same."""


@dataclass(frozen=True, repr=False)
class Verification:
    """The outcome of a comparison with the masked original.

    Attributes
    ----------
    status : str
        "verified"; "vacuous" where all agrees but masking hardly moves the outputs, so that
        agreement proves nothing; "failed".
    error : float
        Largest deviation, relative to the largest absolute value of the tensor.
    tolerance : float
        What was allowed for that tensor.
    tensor : str
        The tensor with the largest deviation in units of its tolerance.
    effect : float
        How far masking moved the outputs, relative: a check that moves nothing proves nothing.
    compared : int
        Number of tensors compared.
    note : str
        What else there is to know: whether copies in another type were compared.
    lossless : bool
        Whether it is the original itself, without masks, whose outputs the pruned model's equal.
    """

    status: str
    error: float
    tolerance: float
    tensor: str
    effect: float
    compared: int
    note: str = ""
    lossless: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing deviates."""
        return self.status != "failed"

    @property
    def _facts(self) -> list[tuple[str, str]]:
        facts = [
            ("compared", text.plural(self.compared, "tensor")),
            ("largest deviation", f"{self.error:.1e} ({self.tolerance:.1e} allowed)"),
            ("masking moves the outputs by", f"{100 * self.effect:.3g} %"),
        ]
        return facts + ([("note", self.note)] if self.note else [])

    def __repr__(self) -> str:
        return f"Verification({self.status}: {'; '.join(f'{name} {value}' for name, value in self._facts)})"

    def _repr_html_(self) -> str:
        return html_table(f"Verification: {self.status}", (), self._facts)


def verify_pruned(analysis: Analysis, pruned: Model, keep: Mask, *, timeout: float = 900.0) -> Verification:
    """Compare a pruned model with the masked original.

    Parameters
    ----------
    analysis : Analysis
        Of the original.
    pruned : Model
    keep : ndarray of bool, shape (atoms,)
        Which atoms stay.
    timeout : float
        Seconds after which the child process is ended.

    Raises
    ------
    VerificationError
        If one of the models does not run, or not in time.
    UnsupportedModelError
        If the original does not run with sizes that were assumed for open dimensions.
    """
    kept = Kept(analysis, keep)
    question = _Question(build_oracle(analysis, kept.mask), removed=not kept.all)
    return _in_a_type(analysis, kept, pruned, question, timeout)


def verify_equal(analysis: Analysis, pruned: Model, keep: Mask, *, timeout: float = 900.0) -> Verification:
    """Compare the outputs of a pruned model with those of the original itself, to 1e-5 of their largest value.

    Parameters and errors are those of :func:`verify_pruned`. What enters a discrete operator stands for what leaves it.
    """
    model = ModelProto()
    model.CopyFrom(analysis.graph.proto)
    kept = Kept(analysis, keep)
    question = _Question(Oracle(analysis.flat.restore(model)), EXACT, lossless=True, removed=not kept.all)
    found = _in_a_type(analysis, kept, pruned, question, timeout)
    return replace(found, status="verified" if found.status == "vacuous" and found.compared else found.status)


def verify_widened(analysis: Analysis, wide: Model, copies: Slices, *, timeout: float = 900.0) -> Verification:
    """Compare all tensors of a wider model with copies of the original's, to 1e-5 of their largest value.

    Parameters and errors are those of :func:`verify_pruned`, but for what says how often each slice is there.
    """
    model = ModelProto()
    model.CopyFrom(analysis.graph.proto)
    question = _Question(Oracle(analysis.flat.restore(model)), relative=EXACT)
    found = _in_a_type(analysis, copies, wide, question, timeout)
    if found.ok:
        return found
    # Copies are summed up in another order, so every layer rounds in its own way. Where a network makes much of that
    # (saturating gates of random weights), moving its input by a few units of rounding shows it.
    again = _in_a_type(analysis, copies, wide, replace(question, grain=_COARSE), timeout)
    return replace(again, note=_CHAOTIC) if again.ok else found


@dataclass(frozen=True, eq=False)
class _Question:
    """What a model is compared with, and how.

    Attributes
    ----------
    oracle : Oracle
    relative : float
        What counts as rounding.
    lossless : bool
        Whether only outputs are compared.
    removed : bool
        Whether it is masks that tell both apart, which then have to move the outputs.
    grain : float
        How far, relatively, an input is moved at least to see what rounding does; what that moves by more than a
        tenth of the widest tolerance is not judged.
    """

    oracle: Oracle
    relative: float = RELATIVE
    lossless: bool = False
    removed: bool = False
    grain: float = 0.0


def _in_a_type(analysis: Analysis, kept: Slices, pruned: Model, question: _Question, timeout: float) -> Verification:
    """Compare in the model's own type if onnxruntime has kernels for it, else in float32."""
    narrow = {held.tensor.data_type for held in survey(analysis.model.proto).tensors} & NARROW
    try:
        if TensorProto.BFLOAT16 not in narrow:
            return _compare(analysis, kept, pruned, question, timeout, wide=False)
    except ChildError as error:
        if not narrow or not _no_kernel(error):
            raise _unverified(error, analysis) from error
    try:
        return _compare(analysis, kept, pruned, question, timeout, wide=True)
    except ChildError as error:
        raise _unverified(error, analysis) from error


def _no_kernel(error: ChildError) -> bool:
    """Whether onnxruntime lacks an operator for some type, which a copy in float32 may get around."""
    return "NotImplemented" in error.message or "NOT_IMPLEMENTED" in error.message or "InvalidGraph" in error.message


def _unverified(error: ChildError, analysis: Analysis) -> GraphPruneError:
    """Say why there is no comparison: perhaps the original cannot run with sizes that were only assumed."""
    before, original, what = error.message.partition("OriginalError: ")
    if not original:
        return VerificationError(
            f"the pruned model could not be verified: {error.message}",
            hint="check that both models run in onnxruntime; --input-shape NAME=1x3x64x64 makes it faster",
        )
    shapes = {name: "x".join(map(str, shape)) for name, shape in analysis.input_shapes.items()}
    if analysis.assumed:
        told = ", ".join(f"{quote(name)} {shapes[name]}" for name in analysis.assumed)
        return UnsupportedModelError(
            f"the model itself does not run with the sizes that were assumed for its open dimensions ({told}): {what}",
            hint=f"give sizes with which it runs, e.g. --input-shape {_example(analysis)}",
        )
    return VerificationError(
        f"the pruned model could not be verified, since the original does not run: {before}{what}",
        hint="check that it runs in onnxruntime with inputs "
        + ", ".join(f"{quote(name)} {shape}" for name, shape in shapes.items()),
    )


def _example(analysis: Analysis) -> str:
    """Return a larger shape of an input, as it would be given."""
    name, axes = next(iter(analysis.assumed.items()))
    sizes = [max(size * 2, 512) if axis in axes else size for axis, size in enumerate(analysis.input_shapes[name])]
    return f"{name}={'x'.join(map(str, sizes))}"


def _compare(
    analysis: Analysis, kept: Slices, pruned: Model, question: _Question, timeout: float, *, wide: bool
) -> Verification:
    """Let a child process compare both models, or copies of both in float32 if `wide`."""
    with tempfile.TemporaryDirectory(prefix="graphprune-verify-") as folder:
        place = Path(folder)
        _prepare(place, analysis, kept, (question, pruned), wide=wide)
        result = run_child("graphprune.verification.comparison", place, timeout)
    found = _judge(result, removed=question.removed, note=_WIDENED if wide else "")
    return replace(found, lossless=question.lossless)


def _judge(result: dict[str, object], *, removed: bool, note: str) -> Verification:
    failed = bool(result["failed"])
    effect = float(str(result["effect"]))
    vacuous = removed and (effect < _MOVES_NOTHING or not int(str(result["compared"])))
    return Verification(
        status="failed" if failed else "vacuous" if vacuous else "verified",
        error=float(str(result["error"])),
        tolerance=float(str(result["tolerance"])),
        tensor=str(result["tensor"]),
        effect=effect,
        compared=int(str(result["compared"])),
        note=note,
    )


def _prepare(place: Path, analysis: Analysis, kept: Slices, models: tuple[_Question, Model], *, wide: bool) -> None:
    """Write both models, the masks and what is to be compared into the child's folder."""
    question, pruned = models
    oracle = question.oracle
    shared = {name for node in pruned.proto.graph.node for name in node.output if name}
    cuts = roundings(analysis, shared)
    names = list(dict.fromkeys((*_comparable(analysis, shared), *cuts)))
    if question.lossless:
        ends = _ends(analysis, discrete_names(analysis))
        names = [name for name in names if name in ends or name in cuts]
    branches = pruned_branches(analysis, lambda labels: kept.counts(labels) == 1)
    grains = _Grains(analysis, wide=wide)
    spec = {
        "inputs": {
            name: {"shape": shape, "dtype": _dtype(analysis, name, wide=wide)}
            for name, shape in analysis.input_shapes.items()
        },
        "grain": max(grains.coarsest, question.grain),
        "relative": question.relative,
        "chaotic": question.grain > 0,
        "branches": [_switches(path, branches) for path in branches],
        "tensors": _tensors(analysis, names, cuts, grains),
    }
    orders: dict[str, Any] = {}
    for number, name in enumerate(names):
        for axis, labels in enumerate(analysis.scope.values.get(name, ())):
            if not whole(kept.counts(labels)):
                orders[f"{number}.{axis}"] = kept.order(labels)
    np.savez(place / "keep.npz", **orders)
    as_floats: dict[str, Any] = {name: value.astype(np.float32) for name, value in oracle.masks.items()}
    np.savez(place / "masks.npz", **as_floats)
    masked = force_branches(oracle.model, branches)
    proto = ModelProto()
    proto.CopyFrom(force_branches(pruned.proto, branches))
    for model in (masked, proto):
        _expose(model, names, analysis)
    cut_roundings(proto, {name: analysis.shapes.dtypes[name] for name in cuts})
    for source, file in ((analysis.model.replaced(masked), "masked.onnx"), (pruned.replaced(proto), "pruned.onnx")):
        save(widened(source) if wide else source, place / file)
    (place / "spec.json").write_text(json.dumps(spec), "utf-8")


def _tensors(analysis: Analysis, names: list[str], cuts: list[str], grains: _Grains) -> list[dict[str, Any]]:
    """Say how each tensor is compared (see `comparison`)."""
    discrete = discrete_names(analysis)
    ends, later = _ends(analysis, discrete), behind(analysis, cuts)
    dims, cut = analysis.shapes.dims, set(cuts)
    return [
        {
            "name": name,
            "own": name + OWN if name in cut else name,
            "elements": int(np.prod(dims.get(name, ()))),
            "compare": name not in discrete,
            "end": name in ends,
            "behind": name in later,
            "cut": cut_kind(analysis, name) if name in cut else "",
            "grain": grains.of(name),
        }
        for name in names
    ]


class _Grains:
    """The coarsest float type on the way to each value, as its relative precision: a cast does not make it finer."""

    def __init__(self, analysis: Analysis, *, wide: bool) -> None:
        self._wide = wide
        self._dtypes = analysis.shapes.dtypes
        self._found: dict[str, float] = {}
        for node in analysis.graph.nodes:
            if not all(name in analysis.shapes.constant for name in node.outputs):
                before = max((self.of(name) for name in (*node.inputs, *node.captured)), default=0.0)
                self._found.update((name, max(before, self._own(name))) for name in node.outputs)
        self.coarsest = max((self.of(name) for name in (*analysis.graph.inputs, *self._found)), default=0.0)

    def of(self, name: str) -> float:
        """Return the precision of a value, 0 where it is no float."""
        return self._found.get(name, self._own(name))

    def _own(self, name: str) -> float:
        elem_type = self._dtypes.get(name, TensorProto.UNDEFINED)
        return float(np.finfo(np.float32 if self._wide else np.float16).eps) if elem_type in _HALVES else 0.0


def _comparable(analysis: Analysis, shared: Collection[str]) -> list[str]:
    """Floating-point values that both models have; graph outputs also where their shape is not known."""
    outputs = {value.name: value.type.tensor_type.elem_type for value in analysis.graph.proto.graph.output}
    dims, dtypes = analysis.shapes.dims, {**outputs, **analysis.shapes.dtypes}
    return [
        name
        for node in analysis.graph.nodes
        for name in node.outputs
        if name in shared
        and name not in analysis.shapes.constant
        and dtypes.get(name) in FLOATS
        and (all(size > 0 for size in dims[name]) if name in dims else name in outputs)
    ]


def _switches(path: dict[str, bool], paths: list[dict[str, bool]]) -> dict[str, bool]:
    """Return the value of every forcing input that leads into one branch."""
    switches = {name: False for other in paths for owner in other for name in force_inputs(owner)}
    for owner, value in path.items():
        switches[force_inputs(owner)[0 if value else 1]] = True
    return switches


def _ends(analysis: Analysis, discrete: set[str]) -> set[str]:
    """Tensors at which the effect of masking is measured: outputs, and what enters a discrete operator."""
    ends = {name for name in analysis.graph.outputs if name not in discrete}
    for node in analysis.graph.nodes:
        if any(name in discrete for name in node.outputs):
            ends.update(name for name in node.inputs if name and name not in discrete)
    return ends


def _dtype(analysis: Analysis, name: str, *, wide: bool) -> str:
    elem_type = analysis.graph.inputs[name].tensor_type.elem_type
    return "float32" if wide and elem_type in NARROW else str(helper.tensor_dtype_to_np_dtype(elem_type))


def _expose(model: ModelProto, names: list[str], analysis: Analysis) -> None:
    """Make intermediate tensors outputs of a model."""
    present = {value.name for value in model.graph.output}
    for name in names:
        if name not in present:
            kind = TypeProto()
            kind.tensor_type.elem_type = analysis.shapes.dtypes[name]
            model.graph.output.add(name=name).type.CopyFrom(kind)
