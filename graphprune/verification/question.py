# SPDX-License-Identifier: Apache-2.0
"""The question that a comparison answers: which models, with inputs of which sizes, what is to be equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from onnx import ModelProto

from graphprune.analysis.analysis import Analysis
from graphprune.labels.adapt import whole
from graphprune.labels.vector import Labels, stay
from graphprune.model.load import Model
from graphprune.surgery.slices import Slices
from graphprune.verification.branches import (
    BranchPath,
    pruned_branches,
    taken_together,
)
from graphprune.verification.limits import RELATIVE
from graphprune.verification.oracle import Oracle
from graphprune.verification.room import has_room, room_needed
from graphprune.verification.smaller_sizes import Sizes, Smaller, count_elements, resized

__all__ = ["MOST_POOLED", "MOST_RUN", "Question"]

MOST_POOLED = 1 << 25
"""Elements of tensors that a piece of a model gives, all in memory at once; and of all values that pools stay for."""
MOST_RUN = 1 << 28
"""Elements of all values up to which a file is run as it is, though it is compared with smaller inputs; and with more
than one kind of inputs."""


@dataclass(frozen=True, eq=False)
class Question:
    """What a model is compared with, and how.

    Attributes
    ----------
    analysis : Analysis
        Of the original.
    pruned : Model
        The other model.
    slices : Slices
        Which slices of the original's tensors it has.
    oracle : Oracle
        What it is to equal.
    relative : float
        What counts as rounding.
    lossless : bool
        Whether only outputs are compared.
    removed : bool
        Whether it is masks that tell both apart, which then have to move the outputs.
    grain : float
        How far, relatively, an input is moved at least to see what rounding does; what that moves by more than a
        tenth of the widest tolerance is not judged.
    widened : bool
        Whether float32 copies are compared.
    tamed : bool
        Whether values that are not finite become zero where they arise, in both models.
    smaller : Smaller, optional
        Inputs that are smaller than the file says.
    """

    analysis: Analysis
    pruned: Model
    slices: Slices
    oracle: Oracle
    relative: float = RELATIVE
    lossless: bool = False
    removed: bool = False
    grain: float = 0.0
    widened: bool = False
    tamed: bool = False
    smaller: Smaller | None = None

    @property
    def is_smaller(self) -> bool:
        """Whether inputs are smaller than the file says."""
        return self.smaller is not None

    @property
    def sizes(self) -> Sizes:
        """The shapes of inputs with which both are compared."""
        return self.smaller.sizes if self.smaller is not None else self.analysis.input_shapes

    @property
    def dims(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of all values with these."""
        return self.smaller.dims if self.smaller is not None else self.analysis.shapes.dims

    @property
    def is_brief(self) -> bool:
        """Whether values are so large that every further run takes long."""
        return count_elements(self.analysis.graph, self.dims) > MOST_RUN

    def resized(self, name: str, axis: int, labels: Labels) -> Labels:
        """Return the labels of an axis of a value with these shapes, for those that it has in the file."""
        if self.smaller is None or name not in self.smaller.dims:
            return labels
        size = self.smaller.dims[name][axis]
        return stay(size) if whole(self.slices.counts(labels)) else resized(labels, size)

    def fitted(self, light: ModelProto, model: Model) -> ModelProto:
        """Return a model that takes inputs of these shapes: itself if they are those of the file."""
        return light if self.smaller is None else self.smaller.fitted(light, model)

    @cached_property
    def ways(self) -> list[list[BranchPath]]:
        """The ways into branches in which something is removed; those that can be taken at once are together."""
        return taken_together(pruned_branches(self.analysis, lambda labels: self.slices.counts(labels) == 1))

    @cached_property
    def in_pieces(self) -> bool:
        """Whether memory does not hold both models, so that they are only ever looked at piece by piece."""
        return not has_room(2 * room_needed(self.analysis.model))

    @cached_property
    def needed(self) -> int:
        """Bytes of memory for the file itself, as its users run it, where this machine has less; else 0."""
        needed = room_needed(self.pruned) if self.in_pieces else 0
        return 0 if has_room(needed) else needed
