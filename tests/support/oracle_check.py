# SPDX-License-Identifier: Apache-2.0
"""The masked oracle in this process: prune, run both models, and compare what they have in common.

Quicker than `graphprune.verification`, which starts a process, and independent of it: it shares nothing but the
masked model. Besides the numbers, the costs that were predicted must be those that are counted on the pruned model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto

from graphprune.analysis.accounting import Accounts
from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Array, Mask
from graphprune.labels.resolve import Attention
from graphprune.model.load import load
from graphprune.model.sizes.lengths import fitting_values
from graphprune.surgery.prune import prune
from graphprune.surgery.slices import Kept
from graphprune.verification.jumps import discrete_names
from graphprune.verification.oracle import build_oracle

__all__ = ["Outcome", "analyze", "assert_costs", "check", "halves", "run"]


_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Outcome:
    """A pruned model that equals the masked original.

    Attributes
    ----------
    analysis : Analysis
        Of the original.
    keep : ndarray of bool
    pruned : ModelProto
    after : Analysis
        Of the pruned model.
    values : dict of str to ndarray
        What the pruned model computes.
    effect : float
        How far masking moved the outputs, relative.
    """

    analysis: Analysis
    keep: Mask
    pruned: ModelProto
    after: Analysis
    values: dict[str, Array]
    effect: float


def analyze(proto: ModelProto, *, attention: Attention = "heads", **shapes: tuple[int, ...]) -> Analysis:
    """Load and analyse a model; `shapes` are those of dynamic inputs. No rule may stumble."""
    analysis = Analysis(load(proto), shapes, attention)
    assert "odd operands" not in {reason.kind for reason in analysis.scope.space.barriers.values()}
    return analysis


def halves(analysis: Analysis, seed: int = 0) -> Mask:
    """Choose half of the atoms of every group (at least one) at random."""
    random = np.random.default_rng(seed)
    keep = np.zeros(int(analysis.grouping.sizes.sum()), dtype=np.bool_)
    for start, size in zip(analysis.grouping.starts, analysis.grouping.sizes, strict=False):
        keep[int(start) + random.permutation(int(size))[: max(1, int(size) // 2)]] = True
    return keep


def check(model: ModelProto | Analysis, keep: Mask | None = None, *, seed: int = 0) -> Outcome:
    """Prune a model (to random halves, if not told) and assert that the result is right in every respect."""
    analysis = analyze(model) if isinstance(model, ModelProto) else model
    keep = halves(analysis, seed) if keep is None else keep
    pruned, whole = prune(analysis, keep), analysis.flat.restore(analysis.flat.proto)
    _assert_valid(pruned, whole)
    names = _common(analysis, pruned)
    kept = Kept(analysis, keep)
    oracle = build_oracle(analysis, kept.mask)
    feeds = _inputs(analysis, seed)
    expected = run(oracle.model, {**feeds, **oracle.masks}, names)
    found = run(pruned, feeds, names)
    original = run(whole, feeds, names)
    for name in names:
        cut = expected[name]
        for axis, mask in enumerate(kept.masks(analysis.scope.values[name])):
            cut = np.compress(mask, cut, axis=axis)
        _assert_close(name, cut, found[name])
    effect = max(
        (_distance(original[name], expected[name]) for name in analysis.graph.outputs if name in names), default=0.0
    )
    after = Analysis(load(pruned), analysis.input_shapes)
    assert_costs(analysis, keep, after)
    return Outcome(analysis, keep, pruned, after, found, effect)


def _assert_valid(pruned: ModelProto, original: ModelProto) -> None:
    """Assert that the checker accepts the pruned model, with shape inference if it gets through the original.

    Operators that onnxruntime alone knows in the default domain are no reason to refuse a model.
    """
    try:
        onnx.checker.check_model(original, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        load(pruned)
    else:
        onnx.checker.check_model(pruned, full_check=True)


def _common(analysis: Analysis, pruned: ModelProto) -> list[str]:
    """Values of both models that may be compared: floats that no discrete operator has touched."""
    made = {name for node in pruned.graph.node for name in node.output if name}
    discrete = discrete_names(analysis)
    shapes = analysis.shapes
    return [
        name
        for node in analysis.graph.nodes
        for name in node.outputs
        if name in made
        and name in shapes.dims
        and name not in shapes.constant
        and name not in discrete
        and shapes.dtypes.get(name) in (TensorProto.FLOAT, TensorProto.DOUBLE)
    ]


def _inputs(analysis: Analysis, seed: int) -> dict[str, Array]:
    random, lengths = np.random.default_rng(seed), fitting_values(analysis.graph, analysis.shapes)
    feeds: dict[str, Array] = {}
    for name, shape in analysis.input_shapes.items():
        dtype = onnx.helper.tensor_dtype_to_np_dtype(analysis.graph.inputs[name].tensor_type.elem_type)
        value = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        value = np.full(shape, lengths[name]) if name in lengths else value
        feeds[name] = np.asarray(value).astype(dtype)
    return feeds


def run(model: ModelProto, feeds: dict[str, Array], names: list[str]) -> dict[str, Array]:
    """Run a model in onnxruntime without graph optimisation and return the named values."""
    exposed = ModelProto()
    exposed.CopyFrom(model)
    present = {value.name for value in model.graph.output}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    declared = {item.name for item in session.get_inputs()}
    fed = {name: value for name, value in feeds.items() if name in declared}
    return dict(zip(names, session.run(names, fed), strict=True))


def _distance(expected: Array, found: Array) -> float:
    scale = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(expected - found).max(initial=0.0)) / (scale or 1.0)


def _assert_close(name: str, expected: Array, found: Array) -> None:
    assert expected.shape == found.shape, f"{name}: {found.shape} instead of {expected.shape}"
    finite = np.isfinite(expected)
    assert np.array_equal(finite, np.isfinite(found)), f"{name}: other values are not finite"
    error = _distance(expected[finite], found[finite])
    assert error <= _TOLERANCE, f"{name}: relative error {error:.1e}"


def assert_costs(analysis: Analysis, keep: Mask, after: Analysis) -> None:
    """Assert that what the polynomials say is what the pruned model has."""
    grouping = analysis.grouping
    widths = np.bincount(grouping.group_of[keep], minlength=len(grouping.sizes)).astype(np.int64)
    shared = Accounts(analysis.scope, analysis.grouping).shared
    # What is left of a shared tensor counts once per reader again where these could part ways later.
    apart = Accounts(after.scope, after.grouping).shared
    for metric in ("flops", "params"):
        predicted = analysis.cost.metric(metric)(widths)
        counted = after.cost.metric(metric)(after.cost.sizes)
        counted -= _added_floats(after) if metric == "params" else 0
        # A tensor whose readers keep different slices is predicted once per reader, and written once where they agree.
        fits = counted <= predicted if metric == "params" and shared else counted == predicted
        fits = fits or (metric == "params" and bool(apart))
        assert fits, f"{metric}: {counted} counted, {predicted} predicted"


def _added_floats(after: Analysis) -> int:
    """Count what surgery stores besides weights: factors that were computed from sizes."""
    held = [tensor for name, tensor in after.graph.initializers.items() if name.endswith(".held")]
    return sum(int(np.prod(tensor.dims)) for tensor in held if tensor.data_type == TensorProto.FLOAT and tensor.dims)
