# SPDX-License-Identifier: Apache-2.0
"""The layout of a comparison: the models, what is compared and with which inputs, in the folder of a child process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, TypeProto

from graphprune.data.providers import verifying
from graphprune.errors import UnsupportedModelError
from graphprune.labels.adapt import whole
from graphprune.model.files.main_memory import main_memory
from graphprune.model.graph import Node
from graphprune.model.load import Model
from graphprune.model.sizes.lengths import fitting_values
from graphprune.model.tensors import FLOATS
from graphprune.model.unread import read_names
from graphprune.model.widen_floats import NARROW, widened
from graphprune.model.write import save
from graphprune.report import text
from graphprune.verification.branches import (
    force_branches,
    force_inputs,
    shared_slots,
    switches,
)
from graphprune.verification.compared import comparable, ends
from graphprune.verification.grains import Grains
from graphprune.verification.integers import with_unsigned_weights
from graphprune.verification.jumps import discrete_names, random_names, stand_still
from graphprune.verification.oracle import bare_oracle, without_weights
from graphprune.verification.orders import Orders
from graphprune.verification.pieces import cut_in_step, stops_of
from graphprune.verification.question import MOST_POOLED, Question
from graphprune.verification.room import room_needed
from graphprune.verification.rounding import OWN, behind, cut_kind, cut_roundings, roundings
from graphprune.verification.sizes import dtype_name, second_sizes
from graphprune.verification.smaller_sizes import count_elements
from graphprune.verification.spec import REFERENCE, SOURCE, WRITTEN, FedInput, PieceSpec, Spec, TensorSpec
from graphprune.verification.staging import StagedWeights, stage_file
from graphprune.verification.taming import tame, wild_values

__all__ = ["lay_out"]

_MOST_STORED = 1 << 28
"""Bytes of weights of which several sessions at once are no burden."""
_CARRIED = FLOATS - {TensorProto.BFLOAT16} | {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8}
_ENDS = "pruned.whole.onnx"


def lay_out(question: Question, place: Path) -> None:
    """Write both models, the masks and what is to be compared into the child's folder.

    Raises
    ------
    UnsupportedModelError
        If float32 copies would be compared, and memory does not hold them.
    """
    if question.widened and question.in_pieces:
        needed = text.file_size(2 * room_needed(question.analysis.model))
        raise UnsupportedModelError(
            f"float32 copies of both models would have to be compared, which takes about {needed} of memory: "
            f"this machine has {text.file_size(main_memory())}",
            hint="verify on a machine with more memory, or export the model in float16, which is compared as it is",
        )
    _Layout(question, place).write()


class _Layout:
    """Collects what is compared, and writes it."""

    def __init__(self, question: Question, place: Path) -> None:
        self.question = question
        self.analysis = question.analysis
        self.place = place
        made = {name for node in question.pruned.proto.graph.node for name in node.output if name}
        self.cuts = roundings(self.analysis, made)
        self.discrete = discrete_names(self.analysis)
        self.random = random_names(self.analysis)
        self.ends = ends(self.analysis, self.discrete)
        wanted = {*comparable(self.analysis, made), *self.cuts}
        if question.lossless:
            wanted &= {*self.ends, *self.cuts}
        # In the order in which they are made: pieces follow each other.
        self.names = [name for node in self.analysis.graph.nodes for name in node.outputs if name in wanted]
        self.wild = wild_values(self.analysis, made) if question.tamed else []
        self.outputs = list(self.analysis.graph.outputs)
        self.slots = shared_slots(self.analysis, (path for group in question.ways for path in group))

    @cached_property
    def serves(self) -> bool:
        """Whether the file itself gives all that extreme inputs are compared at."""
        ends = {name for name in self.names if name in self.ends}
        plain = ends <= set(self.outputs) and not self.random
        return plain and not (self.cuts or self.slots or self.wild or self.question.widened)

    def write(self) -> None:
        """Write everything."""
        question, place = self.question, self.place
        self._orders().write(place)
        masks: dict[str, Any] = {
            name: value if value.dtype == np.bool_ or not question.widened else value.astype(np.float32)
            for name, value in question.oracle.masks.items()
        }
        np.savez(place / "masks.npz", **masks)
        if not question.needed and question.is_smaller:
            save(question.pruned.replaced(question.fitted(question.pruned.proto, question.pruned)), place / WRITTEN)
        elif not question.needed:
            stage_file(question.pruned, place / WRITTEN)
        oracle = question.oracle
        masked, masked_weights = self._copy(oracle.light, oracle.weights, self.analysis.model, "masked")
        pruned, pruned_weights = self._copy(*without_weights(question.pruned.proto), question.pruned, "pruned")
        if not question.needed:
            self._write_source(masked_weights)
        if not question.in_pieces:
            masked_weights.write(self._exposed(masked, self._whole_names), REFERENCE)
            if not self.serves:
                pruned_weights.write(self._cut(self._exposed(pruned, self._whole_names)), _ENDS)
        masked, pruned = (self._exposed(model, self.names) for model in (masked, pruned))
        pruned = self._cut(pruned)
        stops, pieces = self._pieces(masked, masked_weights, pruned, pruned_weights)
        self._spec(stops, pieces).write(place)

    @property
    def _whole_names(self) -> list[str]:
        """Tensors that the models give in one piece, besides their outputs."""
        return [name for name in self.names if name in self.ends or name in self.cuts]

    def _copy(
        self, light: ModelProto, weights: list[TensorProto] | Any, model: Model, name: str
    ) -> tuple[ModelProto, StagedWeights]:
        """Return a copy that may be edited, and write its weights."""
        store = model.tensors
        light = force_branches(light, self.slots)
        copy = ModelProto()
        copy.CopyFrom(self.question.fitted(light, model))
        stand_still(copy)
        tame(copy, self.wild, self.analysis.shapes.dtypes)
        if self.question.widened:
            whole_copy = ModelProto()
            whole_copy.CopyFrom(copy)
            whole_copy.graph.initializer.extend(weights)
            copy, weights = without_weights(widened(model.replaced(whole_copy)).proto)
        else:
            types = {**self.analysis.shapes.dtypes, **self.question.oracle.types}
            weights = with_unsigned_weights(copy, weights, types, store)
        return copy, StagedWeights(self.place / f"{name}.data", _read_by(copy, weights), store)

    def _write_source(self, masked_weights: StagedWeights) -> None:
        """Write the original as it is, to see whether it runs."""
        bare = bare_oracle(self.analysis)
        own = _read_by(bare.light, bare.weights)
        fits = not self.question.widened and [tensor.name for tensor in own]
        names = [tensor.name for tensor in masked_weights.references]
        weights = (
            masked_weights
            if fits == names
            else StagedWeights(self.place / "source.data", own, self.analysis.model.tensors)
        )
        weights.write(self.question.fitted(bare.light, self.analysis.model), SOURCE)

    def _exposed(self, model: ModelProto, names: list[str]) -> ModelProto:
        """Return a copy with intermediate tensors as outputs."""
        copy = ModelProto()
        copy.CopyFrom(model)
        present = {value.name for value in copy.graph.output}
        for name in names:
            if name not in present:
                elem_type = self.analysis.shapes.dtypes[name]
                elem_type = TensorProto.FLOAT if self.question.widened and elem_type in NARROW else elem_type
                kind = TypeProto()
                kind.tensor_type.elem_type = elem_type
                copy.graph.output.add(name=name).type.CopyFrom(kind)
        return copy

    def _cut(self, model: ModelProto) -> ModelProto:
        """Cut the pruned model where values are rounded."""
        cut_roundings(model, {name: self.analysis.shapes.dtypes[name] for name in self.cuts})
        return model

    def _pieces(
        self, masked: ModelProto, masked_weights: StagedWeights, pruned: ModelProto, pruned_weights: StagedWeights
    ) -> tuple[dict[str, int], list[list[PieceSpec]]]:
        """Write both models with all tensors as outputs, cut into pieces if these are many."""
        dims = self.question.dims
        elements = {name: int(np.prod(dims.get(name, ()))) for name in self.names}
        nodes = (
            ({name: elements[name] for name in node.outputs if name in elements}, self._weights_of(node))
            for node in self.analysis.graph.nodes
        )
        stops = stops_of(nodes, MOST_POOLED)
        if len(set(stops.values())) <= 1 or self.question.widened:
            masked_weights.write(masked, "masked.onnx")
            pruned_weights.write(pruned, "pruned.onnx")
            return dict.fromkeys(self.names, 0), [[PieceSpec("masked.onnx")], [PieceSpec("pruned.onnx")]]
        own = {name: name + OWN for name in self.cuts}
        types = {name: kind for name, kind in self.analysis.shapes.dtypes.items() if kind in _CARRIED}
        models: list[tuple[ModelProto, dict[str, str]]] = [
            (masked_weights.attach(masked), {}),
            (pruned_weights.attach(pruned), own),
        ]
        stops, pieces = cut_in_step(models, stops, types, self._known_shapes())
        specs = []
        for name, parts in zip(("masked", "pruned"), pieces, strict=True):
            specs.append([PieceSpec(f"{name}.{at}.onnx", part.needs, part.gives) for at, part in enumerate(parts)])
            for spec, part in zip(specs[-1], parts, strict=True):
                (self.place / spec.file).write_bytes(part.model.SerializeToString())
        return stops, specs

    def _known_shapes(self) -> dict[str, Sequence[int | None]]:
        """Return what holds in both models for any size of the inputs: lengths of lists of sizes, and ranks."""
        shapes = self.analysis.shapes
        return {
            name: dims if name in shapes.open and len(dims) <= 1 else [None] * len(dims)
            for name, dims in shapes.dims.items()
        }

    def _weights_of(self, node: Node) -> int:
        """Elements of the constants that a node reads, where not all of them fit into memory."""
        if not self.question.in_pieces:
            return 0
        shapes = self.analysis.shapes
        return sum(prod(shapes.dims.get(name, (0,))) for name in node.inputs if name in shapes.constant)

    def _orders(self) -> Orders:
        """Return where the slices that the pruned model has stand in the original."""
        orders, slices = Orders(), self.question.slices
        wholes: dict[tuple[int, int, int], bool] = {}
        for number, name in enumerate(self.names):
            for axis, whole_labels in enumerate(self.analysis.scope.values.get(name, ())):
                labels = self.question.resized(name, axis, whole_labels)
                key = id(labels.base), labels.repeat, labels.tile
                if key not in wholes:
                    wholes[key] = whole(slices.counts(labels))
                    if not wholes[key]:
                        orders.put(key, slices.order(labels))
                if not wholes[key]:
                    orders.use(number, axis, key)
        return orders

    def _spec(self, stops: dict[str, int], pieces: list[list[PieceSpec]]) -> Spec:
        """Return what the child has to know."""
        question, grains = self.question, Grains(self.analysis, widened=self.question.widened)
        lengths = fitting_values(self.analysis.graph, self.analysis.shapes)
        inputs = {
            name: FedInput(
                list(shape),
                self._dtype(name, widened=question.widened),
                self._dtype(name, widened=False),
                lengths.get(name),
            )
            for name, shape in question.sizes.items()
        }
        graph, stored = self.analysis.graph, (self.place / "masked.data").stat().st_size
        fed = (graph.inputs[name].tensor_type.elem_type for name in inputs)
        return Spec(
            inputs=inputs,
            tensors=self._tensors(stops, grains),
            outputs=self.outputs,
            jumping=[name for name in self.outputs if name in self.discrete],
            masked=pieces[0],
            pruned=pieces[1],
            ends="" if self.serves or question.in_pieces else _ENDS,
            in_pieces=question.in_pieces,
            lean=stored > _MOST_STORED or count_elements(graph, question.dims) > MOST_POOLED,
            brief=question.is_brief,
            optimised=not self.cuts and not question.is_brief,
            plain=TensorProto.BFLOAT16 not in fed and not question.needed,
            plain_values=not (self.cuts or self.wild or question.widened or self.random),
            widened=question.widened,
            grain=max(grains.coarsest, question.grain),
            relative=question.relative,
            chaotic=question.grain > 0,
            switches=sorted({name for slot in self.slots.values() for name in force_inputs(slot)}),
            branches=[[switches(path, self.slots) for path in group] for group in question.ways],
            sizes=second_sizes(graph, question.sizes),
            device=verifying().name,
        )

    def _tensors(self, stops: dict[str, int], grains: Grains) -> list[TensorSpec]:
        """Say how each tensor is compared."""
        later, cut = behind(self.analysis, self.cuts), set(self.cuts)
        return [
            TensorSpec(
                name,
                own=name + OWN if name in cut else "",
                piece=stops[name],
                compare=name not in self.discrete,
                end=name in self.ends,
                behind=name in later,
                cut=cut_kind(self.analysis, name) if name in cut else "",
                grain=grains.of(name),
            )
            for name in self.names
        ]

    def _dtype(self, name: str, *, widened: bool) -> str:
        narrow = widened and self.analysis.graph.inputs[name].tensor_type.elem_type in NARROW
        return "float32" if narrow else dtype_name(self.analysis.graph, name)


def _read_by(light: ModelProto, weights: Iterable[TensorProto]) -> list[TensorProto]:
    """Return the weights that a graph reads (:func:`graphprune.model.unread.without_unread`)."""
    read = read_names(light)
    return [tensor for tensor in weights if tensor.name in read]
