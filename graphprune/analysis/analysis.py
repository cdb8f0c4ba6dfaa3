# SPDX-License-Identifier: Apache-2.0
"""Everything that is known of a model before any width is chosen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from graphprune.analysis.accounting import Accounts, Layer
from graphprune.analysis.alternatives import decided, resolve_grouped
from graphprune.analysis.groups import Carriers, Group, Grouping, describe, form_groups
from graphprune.analysis.inside_heads import find_inside_heads
from graphprune.analysis.own_positions import given_ranks, rank_outputs, tied_by_rank
from graphprune.analysis.uncounted import Uncounted, find_uncounted
from graphprune.array_types import Array, Ints, Mask
from graphprune.choices import Grouped
from graphprune.errors import quote
from graphprune.labels.origins import Origins
from graphprune.labels.propagate import propagate
from graphprune.labels.resolve import Attention, Resolution
from graphprune.labels.space import Reason
from graphprune.labels.vector import Labels
from graphprune.model.evaluation.constant_evaluation import Outside
from graphprune.model.graph import Graph, Node
from graphprune.model.load import Model
from graphprune.model.node_times import time_shares
from graphprune.model.normalize import inline_functions
from graphprune.model.sizes.fitting import fit_inputs
from graphprune.model.sizes.inputs import assumed
from graphprune.model.sizes.lengths import fitting_values
from graphprune.model.sizes.unreached import unreached_nodes
from graphprune.model.values.bodies import flatten
from graphprune.model.values.constants import Constants
from graphprune.model.values.scaling import real_values
from graphprune.model.values.sequences import spell_out
from graphprune.model.values.shapes import Shapes
from graphprune.notebook import html_table
from graphprune.report import text

__all__ = ["Analysis", "Frozen", "Held", "Layer"]


@dataclass(frozen=True)
class Held:
    """A counted layer that a reason holds: its node, operator and FLOPs."""

    node: str
    op: str
    flops: int


@dataclass(frozen=True)
class Frozen:
    """One kind of reason why channels stay.

    Attributes
    ----------
    kind, text : str
        The kind, and a sentence about its first case.
    node : str
        The first node that is the reason; empty for graph inputs and outputs.
    layers : int
        Counted layers that cannot lose channels on some axis for this reason.
    flops : int
        FLOPs of those layers. A layer counts for the reason of each of its axes, so the sum over
        all kinds can exceed what the model has.
    largest : tuple of Held
        The largest of those layers.
    whole : int
        FLOPs of those among them that cannot lose channels on any axis.
    """

    kind: str
    node: str
    text: str
    layers: int
    flops: int
    largest: tuple[Held, ...] = ()
    whole: int = 0


_LARGEST = 5
"""Layers named per kind of reason."""


class Analysis:
    """A model with its coupled groups and costs.

    Parameters
    ----------
    model : Model
    given_shapes : mapping of str to sequence of int, optional
        Input shapes to count FLOPs for; dynamic dimensions get defaults.
    attention : {"heads", "head-dim"}
        Which axis carries the channels of an attention layer.
    approximate : bool
        Let channels pass through normalisations over the channel axis; such groups are not exact.
    grouped : {"auto", "groups", "slices", "own"}
        What goes from grouped convolutions where there is a choice (:mod:`graphprune.analysis.alternatives`), and
        whether each conv group keeps outputs at positions of its own where it may, as it does with "auto" and "own"
        (:mod:`graphprune.analysis.own_positions`). Or by node what was decided before: the name of an alternative,
        or the rank of every output within its group.
    held : collection of str
        First outputs of nodes at which channels stay, because their sizes cannot follow
        (:mod:`graphprune.surgery.rehearsal`).

    Attributes
    ----------
    graph : Graph
        The analysed graph: the file's, with local functions inlined and bodies laid out.
    input_shapes : dict of str to tuple of int
    scope, resolution, grouping
        Labels, how they were resolved, and which atom each belongs to.
    ranks : dict of str to ndarray of int64
        By grouped convolution whose groups keep positions of their own, the rank of each output within its group:
        outputs of one rank go together.
    groups : tuple of Group
    cost : CostModel
    layers : tuple of Layer
        Counted nodes, in graph order.
    shared, stored : frozenset of str
        Stored tensors whose readers keep different slices, and all whose bytes are counted.
    """

    def __init__(
        self,
        model: Model,
        given_shapes: Mapping[str, Sequence[int]] | None = None,
        attention: Attention = "heads",
        *,
        approximate: bool = False,
        grouped: Grouped | Mapping[str, str | Sequence[int]] = "auto",
        held: Collection[str] = (),
    ) -> None:
        self.model = model
        self.held = frozenset(held)
        self.attention = attention
        self.approximate = approximate
        self.grouped = grouped
        self.flat = flatten(spell_out(inline_functions(model.proto)))
        self.graph = Graph(self.flat.proto)
        self._given = dict(given_shapes or {})
        self._fitting, self._fit = fit_inputs(model, self.flat, self.graph, self._given)
        self.input_shapes, self.shapes = self._fit.inputs, self._fit.shapes
        self.constants = Constants(self.graph, self.shapes, model.tensors.array, Outside())
        self.scope = propagate(
            *(self.graph, self.shapes, self.constants),
            approximate=approximate,
            other=lambda: self.other_shapes,
            unreached=unreached_nodes(self.flat, self.graph, self.shapes),
            held=sorted(self.held & self.graph.producer.keys()),
        )
        carriers = Carriers(self.scope)
        by_position = resolve_grouped(self.scope, attention, grouped, carriers)
        self.ranks = self._ranked(carriers, by_position)
        self.resolution = tied_by_rank(self.scope.space, by_position, self.ranks)
        self.grouping: Grouping = form_groups(carriers, self.resolution)
        accounts = Accounts(self.scope, self.grouping)
        self.shared, self.stored = accounts.shared, accounts.stored
        self.groups: tuple[Group, ...] = describe(self.scope, self.grouping, accounts.shared)
        self.cost = accounts.model()
        self.layers = accounts.layers

    def __repr__(self) -> str:
        sizes = self.cost.sizes
        groups = text.plural(len(self.groups), "coupled group")
        cost = f"{text.count(self.cost.flops(sizes), 'FLOPs')}, {text.count(self.cost.params(sizes))} params"
        return (
            f"Analysis({quote(self.model.name)}: {groups}, {cost}, {100 * self.prunable:.1f} % of the FLOPs prunable)"
        )

    def _repr_html_(self) -> str:
        rows = [(group.id, text.name(group.name), group.size, "yes" if group.exact else "no") for group in self.groups]
        return html_table(repr(self), ("group", "made by", "width", "exact"), rows)

    def holding(self, held: Collection[str]) -> Analysis:
        """Return the model analysed in the same way, with channels that stay at the given nodes."""
        return Analysis(
            self.model, self._given, self.attention, approximate=self.approximate, grouped=self.grouped, held=held
        )

    def of(self, model: Model, keep: Mask | None = None) -> Analysis:
        """Return another model analysed like this one, with the same answer wherever channels had a choice.

        Parameters
        ----------
        model : Model
            With the same inputs: this one with other weights, or a part of it.
        keep : ndarray of bool, shape (atoms,), optional
            Atoms that a part still has, where it has lost some that are exchangeable for them.
        """
        left = {name: self._ranks_left(name, keep).tolist() for name in self.ranks}
        return self._again(model, {**decided(self.resolution), **left})

    def by_position(self) -> Analysis:
        """Return the model analysed like this, but that all groups of a convolution keep the same positions."""
        return self._again(self.model, decided(self.resolution)) if self.ranks else self

    def _again(self, model: Model, grouped: Mapping[str, str | Sequence[int]]) -> Analysis:
        held = self.held
        return Analysis(
            model, self.input_shapes, self.attention, approximate=self.approximate, grouped=grouped, held=held
        )

    def _ranked(self, carriers: Carriers, resolution: Resolution) -> dict[str, Ints]:
        """Return ranks as they were given, or as they follow from the weights."""
        if isinstance(self.grouped, Mapping):
            given = {name: ranks for name, ranks in self.grouped.items() if not isinstance(ranks, str)}
            return given_ranks(self.scope.space, resolution, given)
        own = self.grouped in ("auto", "own")
        return rank_outputs(self.scope, carriers, resolution, self.read) if own else {}

    def _ranks_left(self, name: str, keep: Mask | None) -> Ints:
        """Return the ranks of the outputs that stay among themselves."""
        ranks = self.ranks[name]
        if keep is not None:
            outputs = next(each for each in self.scope.space.grouped_channels if each.node.label == name)
            ranks = ranks[self.grouping.kept(outputs.channels, keep)]
        return np.unique(ranks, return_inverse=True)[1].astype(np.int64)

    def read(self, name: str) -> Array:
        """Return a tensor that a member names: stored in the file, or computed from constants.

        Integers that stand for real numbers come as these.

        Raises
        ------
        KeyError
            If the model has no such constant.
        """
        quantisation = self.scope.quantised.get(name)
        if quantisation is None:
            return self.constants.array(name)
        scale, zero_point = (
            self.constants.array(item) if item else None for item in (quantisation.scale, quantisation.zero_point)
        )
        return real_values(self.constants.array(name), scale, zero_point, quantisation)

    @property
    def assumed(self) -> dict[str, frozenset[int]]:
        """The axes by input that got sizes that nobody gave; where samples are counted, one is right anyway."""
        return assumed(self.graph, self._given)

    @cached_property
    def other_shapes(self) -> Shapes | None:
        """Shapes for a second size of every dynamic input dimension; None where none is dynamic."""
        return self._fitting.other(self._fit.sizes)

    @cached_property
    def layer_reasons(self) -> tuple[tuple[Reason, ...], ...]:
        """For each layer why channels of its sides stay, one reason of a kind; empty where both can lose some."""
        of_layers = []
        for cost in self.scope.space.costs:
            kinds: dict[str, Reason] = {}
            for axis in (cost.inner, cost.outer):
                reason = self._reason(cost.node, axis)
                if reason is not None:
                    kinds.setdefault(reason.kind, reason)
            of_layers.append(tuple(kinds.values()))
        return tuple(of_layers)

    @cached_property
    def frozen(self) -> tuple[Frozen, ...]:
        """Why channels of counted layers stay, the reason that holds most FLOPs first."""
        cases_of: dict[str, list[tuple[Reason, Held]]] = {}
        for reasons, layer in zip(self.layer_reasons, self.layers, strict=True):
            held = Held(layer.node, layer.op, layer.flops(self.grouping.sizes))
            for reason in reasons:
                cases_of.setdefault(reason.kind, []).append((reason, held))
        entries = [_frozen(kind, cases, self.rest) for kind, cases in cases_of.items()]
        return tuple(sorted(entries, key=lambda entry: (-entry.flops, entry.kind)))

    @cached_property
    def rest(self) -> tuple[Held, ...]:
        """Layers that cannot lose channels on any axis, the largest first."""
        sizes, ones = self.grouping.sizes, np.ones_like(self.grouping.sizes)
        layers = [Held(layer.node, layer.op, layer.flops(sizes)) for layer in self.layers]
        stay = [held for held, layer in zip(layers, self.layers, strict=True) if held.flops == layer.flops(ones)]
        return tuple(sorted(stay, key=lambda held: -held.flops))

    @cached_property
    def first_freezes(self) -> npt.NDArray[np.int64]:
        """For each component the number of the first freeze that holds it, -1 where none does."""
        first = np.full(int(self.resolution.component.max()) + 1, -1, dtype=np.int64)
        for number in range(len(self.resolution.freezes) - 1, -1, -1):
            first[self.resolution.component[self.resolution.freezes[number][0]]] = number
        return first

    @cached_property
    def origins(self) -> Origins:
        """Why axes that carry no channels are whole."""
        return Origins(self.scope, self.resolution)

    def _reason(self, node: Node, axis: Labels) -> Reason | None:
        """Return the reason why some slice of an axis that `node` reads or makes stays; None where all may go."""
        stays = self.grouping.atom_of[axis.base] < 0
        if len(axis) == 1 or not stays.any():
            return None
        barrier = self.scope.space.barriers.get(node.index)
        if barrier is not None:
            return barrier
        label = int(axis.base[int(np.argmax(stays))])
        if label == 0:
            origin = self.origins.of_node(node, len(axis))
            return origin.reason if origin else Reason("whole axis", node, "is no channel axis: space, batch or tokens")
        number = int(self.first_freezes[self.resolution.component[label]])
        if number < 0:
            return Reason("single atom", None, "is one block that cannot be divided")
        return self.origins.behind(self.resolution.freezes[number][1], len(axis)).reason

    @cached_property
    def uncounted(self) -> tuple[Uncounted, ...]:
        """Nodes whose work is in no figure, those with most weights first."""
        return find_uncounted(self.scope)

    @cached_property
    def inside_heads(self) -> tuple[tuple[str, ...], Reason | None]:
        """Nodes at which a part of each head goes although whole heads were asked for, and why these stay."""
        inside = find_inside_heads(self.scope.space, self.resolution) if self.attention == "heads" else None
        if inside is None:
            return (), None
        number = int(self.first_freezes[self.resolution.component[inside.heads]].max())
        if number < 0:
            return inside.nodes, None
        return inside.nodes, self.origins.behind(self.resolution.freezes[number][1], len(inside.heads)).reason

    @cached_property
    def uncounted_time(self) -> float | None:
        """Share of the time of a run that `uncounted` takes, measured when asked for; None where nothing can be run."""
        labels = {item.node for item in self.uncounted}
        if not labels:
            return 0.0
        runnable = self.model.replaced(self.flat.restore(self.flat.proto))
        lengths = fitting_values(self.graph, self.shapes)
        shares = time_shares(runnable, self.input_shapes, lengths, labels)
        return sum(shares.values()) if shares else None

    @property
    def prunable(self) -> float:
        """Share of the FLOPs in layers that can lose channels on at least one axis."""
        total = self.cost.flops(self.grouping.sizes)
        return 1 - sum(held.flops for held in self.rest) / total if total else 0.0


def _frozen(kind: str, cases: list[tuple[Reason, Held]], rest: tuple[Held, ...]) -> Frozen:
    """Sum up what one kind of reason holds; the first case in graph order stands for all."""
    reason = cases[0][0]
    layers = [held for _, held in cases]
    largest = sorted(layers, key=lambda held: -held.flops)[:_LARGEST]
    node = reason.node.label if reason.node else ""
    whole = sum(held.flops for held in {*layers} & {*rest})
    flops = sum(held.flops for held in layers)
    return Frozen(kind, node, reason.text, len(layers), flops, tuple(largest), whole)
