# SPDX-License-Identifier: Apache-2.0
"""A gated file: a network whose channels are switched on and off for every sample, in plain ONNX operators.

No runtime skips what is switched off, so the file saves nothing by itself: it is for looking at what a gated network
computes. What could be saved is the *expected* cost, which must not be mixed up with the cost of a pruned network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import Tensor

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Array
from graphprune.errors import UnsupportedModelError
from graphprune.model.graph import Graph
from graphprune.model.load import Model
from graphprune.model.normalize import inline_functions
from graphprune.training.bridge import Trainable
from graphprune.training.gates import samples_at, touched
from graphprune.training.pruning.predictors import Place, Predictor
from graphprune.training.sample_axes import SampleAxis

__all__ = ["GatedModel", "gated_model", "packed", "unpacked"]

GatedModel = Model


_OPSET = 13
"""The first with all operators in the form that is written."""


def gated_model(
    model: Model,
    analysis: Analysis,
    net: Trainable,
    places: Mapping[str, Place],
    predictors: Mapping[str, Predictor],
) -> Model:
    """Return a model with its gates.

    Parameters
    ----------
    model : Model
        With trained weights.
    analysis : Analysis
        Of a model of the same structure.
    net : Trainable
        Of the same structure, with gates.
    places : mapping of str to Place
        Where each gated group is made.
    predictors : mapping of str to Predictor
        By the id of the group.

    Raises
    ------
    UnsupportedModelError
        If the operator set is too old.
    """
    proto = ModelProto()
    proto.CopyFrom(inline_functions(model.proto))
    graph = Graph(proto)
    if graph.opset < _OPSET:
        raise UnsupportedModelError(f"gates need operator set {_OPSET}, and the model has {graph.opset}")
    writer = _Writer(graph)
    numbers = {number: group.id for number, group in enumerate(analysis.groups) if group.id in predictors}
    for contraction in analysis.scope.space.contractions:
        for number, atoms in touched(analysis, contraction).items():
            samples = samples_at(net, contraction, number) if number in numbers else None
            if samples is not None:
                place = (contraction.node.outputs[0], contraction.slot)
                rank = len(analysis.shapes.dims[contraction.node.inputs[contraction.slot]])
                gating = _Gating(numbers[number], atoms, contraction.axis % rank, rank, samples)
                writer.gates.setdefault(place, []).append(gating)
    for name, predictor in predictors.items():
        writer.makers.setdefault(places[name].cost.node.outputs[0], []).append((name, places[name], predictor))
    writer.write()
    return model.replaced(proto)


def packed(model: GatedModel) -> Tensor:
    """Return a model as a tensor of bytes, for a checkpoint."""
    return torch.frombuffer(bytearray(model.proto.SerializeToString()), dtype=torch.uint8)


def unpacked(data: Tensor, like: Model) -> GatedModel:
    """Return the model that `packed` was given."""
    proto = ModelProto()
    proto.ParseFromString(data.numpy().tobytes())
    return like.replaced(proto)


@dataclass(frozen=True, eq=False)
class _Gating:
    """A value that is multiplied by the factors of a group: along which of its axes, and where its samples lie."""

    group: str
    atoms: Array
    axis: int
    rank: int
    samples: SampleAxis


class _Writer:
    """Puts nodes before those that read or make gated channels."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.gates: dict[tuple[str, int], list[_Gating]] = {}
        self.makers: dict[str, list[tuple[str, Place, Predictor]]] = {}
        self._taken = set(graph.initializers) | set(graph.inputs) | set(graph.producer)
        self._nodes: list[NodeProto] = []
        self._factors: dict[str, str] = {}

    def write(self) -> None:
        """Replace the nodes of the graph."""
        for node in self.graph.nodes:
            own = NodeProto()
            own.CopyFrom(node.proto)
            for slot in range(len(own.input)):
                for gate in self.gates.get((node.outputs[0], slot), ()):
                    own.input[slot] = self._gated(own.input[slot], gate)
            for maker in self.makers.get(node.outputs[0], ()):
                self._predict(own.input[0], *maker)
            self._nodes.append(own)
        del self.graph.proto.graph.node[:]
        self.graph.proto.graph.node.extend(self._nodes)

    def _name(self, base: str) -> str:
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}.{number}"
        self._taken.add(name)
        return name

    def _add(self, op: str, *inputs: str, base: str, outputs: int = 1, **attributes: Any) -> str:
        names = [self._name(base) for _ in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, name=names[0], **attributes))
        return names[0]

    def _constant(self, base: str, value: Array) -> str:
        name = self._name(base)
        self.graph.proto.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _predict(self, source: str, name: str, place: Place, predictor: Predictor) -> None:
        """Compute the factors of a group, and remember their name."""
        base = f"{name}.gate"
        axis, samples = place.axis % place.rank, predictor.samples
        rest = [other for other in range(place.rank) if other not in (axis, samples.axis)]
        pooled = self._mean(source, rest, base) if rest else source
        if axis < samples.axis:
            pooled = self._add("Transpose", pooled, base=f"{base}.rows", perm=[1, 0])
        if samples.outer > 1 or samples.inner > 1:
            shape = np.array([samples.outer, -1, samples.inner, place.channels], dtype=np.int64)
            split = self._add("Reshape", pooled, self._constant(f"{base}.split", shape), base=f"{base}.apart")
            pooled = self._mean(split, [0, 2], base)
        phi = self._constant(f"{base}.phi", predictor.phi.detach().cpu().numpy())
        rho = self._constant(f"{base}.rho", predictor.rho.detach().cpu().numpy())
        factors = self._add("Relu", self._add("Gemm", pooled, phi, rho, base=f"{base}.linear"), base=f"{base}.relu")
        if predictor.kept < len(predictor.rho):
            many = self._constant(f"{base}.k", np.array([predictor.kept + 1], dtype=np.int64))
            top = self._add("TopK", factors, many, base=f"{base}.top", outputs=2, axis=1)
            last = self._constant(f"{base}.last", np.array([predictor.kept], dtype=np.int64))
            threshold = self._add("Gather", top, last, base=f"{base}.threshold", axis=1)
            fires = self._add("Greater", factors, threshold, base=f"{base}.fires")
            zero = self._constant(f"{base}.zero", np.zeros((), dtype=np.float32))
            factors = self._add("Where", fires, factors, zero, base=f"{base}.chosen")
        self._factors[name] = factors

    def _mean(self, source: str, axes: list[int], base: str) -> str:
        """Average over some axes, which vanish."""
        if self.graph.opset < 18:
            return self._add("ReduceMean", source, base=f"{base}.mean", keepdims=0, axes=axes)
        held = self._constant(f"{base}.axes", np.array(axes, dtype=np.int64))
        return self._add("ReduceMean", source, held, base=f"{base}.mean", keepdims=0)

    def _spread(self, factor: str, base: str, channels: int, samples: SampleAxis) -> str:
        """Repeat the row of each sample for every position that it has."""
        if samples.outer == samples.inner == 1:
            return factor
        shape = self._constant(f"{base}.rows", np.array([1, -1, 1, channels], dtype=np.int64))
        often = self._constant(f"{base}.often", np.array([samples.outer, 1, samples.inner, 1], dtype=np.int64))
        tiled = self._add("Tile", self._add("Reshape", factor, shape, base=base), often, base=f"{base}.tiled")
        flat = self._constant(f"{base}.flat", np.array([-1, channels], dtype=np.int64))
        return self._add("Reshape", tiled, flat, base=f"{base}.spread")

    def _gated(self, value: str, gate: _Gating) -> str:
        """Multiply a value along an axis; slices of other groups get the factor 1."""
        name, atoms, samples = gate.group, gate.atoms, gate.samples
        base, factor = f"{name}.gated", self._factors[name]
        size = len(self._predictor(name).rho)
        if (atoms == size).any():
            zero = self._constant(f"{base}.none", np.zeros((), dtype=np.float32))
            one = self._constant(f"{base}.one", np.ones((), dtype=np.float32))
            first = self._constant(f"{base}.first", np.zeros(1, dtype=np.int64))
            column = self._add("Gather", factor, first, base=f"{base}.column", axis=1)
            ones = self._add("Add", self._add("Mul", column, zero, base=f"{base}.nothing"), one, base=f"{base}.ones")
            factor = self._add("Concat", factor, ones, base=f"{base}.whole", axis=1)
        if len(atoms) != size or (atoms != np.arange(size)).any():
            index = self._constant(f"{base}.atoms", atoms.astype(np.int64))
            factor = self._add("Gather", factor, index, base=f"{base}.slices", axis=1)
        factor = self._spread(factor, base, len(atoms), samples)
        if gate.axis < samples.axis:
            factor = self._add("Transpose", factor, base=f"{base}.columns", perm=[1, 0])
        shape = np.ones(gate.rank, dtype=np.int64)
        shape[samples.axis], shape[gate.axis] = -1, len(atoms)
        factor = self._add("Reshape", factor, self._constant(f"{base}.shape", shape), base=f"{base}.shaped")
        return self._add("Mul", value, factor, base=base)

    def _predictor(self, name: str) -> Predictor:
        return next(item for made in self.makers.values() for own, _, item in made if own == name)
