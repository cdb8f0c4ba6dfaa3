# SPDX-License-Identifier: Apache-2.0
"""A running network: the module that is trained, and its place in the whole model that it is a part of.

Channels that are gone for good are cut out of the module, so that training gets faster as it goes. The whole model
keeps what they last were, and takes the weights of the rest back. Where a module cannot be cut (surgery had to
make tensors that the model does not have), channels stay in it, and the gates of the method have to hold them shut; a
module that was cut before stays as it is then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.groups import Group, Member
from graphprune.array_types import Ints, Mask
from graphprune.model.graph import Graph
from graphprune.model.load import Model
from graphprune.model.normalize import inline_functions
from graphprune.plan.keep_mask import keep_mask
from graphprune.plan.schema import Plan
from graphprune.rewrites.reference import make_reference
from graphprune.surgery.marks import marks, put_marks
from graphprune.surgery.prune import prune
from graphprune.training.bridge import Trainable, to_torch, value_in, weights_now, with_values
from graphprune.verification.fidelity.check_fidelity import check_fidelity

__all__ = ["RunningNetwork", "begin", "fits", "renewed", "shrunk"]

_Removed = Mapping[str, Mapping[int, Ints]]


@dataclass(frozen=True, eq=False)
class RunningNetwork:
    """A network in training.

    Attributes
    ----------
    whole : Analysis
        Of the whole model, with the weights that it had when the network was cut.
    net : Trainable
        What is trained.
    analysis : Analysis
        Of the model that `net` was made of.
    plan : Plan or None
        What the network has lost.
    cut_by : Plan or None
        What is really gone from `net`: all that is lost, or less; with None all channels are still there.
    atoms : dict of str to ndarray of int64
        By the id of a group in `whole`: its atoms that `net` has, in the order of the group there. Groups that have
        no counterpart, since a single atom is left of them, are missing.
    names : dict of str to str
        Ids of the same groups in `analysis`.
    """

    whole: Analysis
    net: Trainable
    analysis: Analysis
    plan: Plan | None = None
    cut_by: Plan | None = None
    atoms: dict[str, Ints] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def cut(self) -> bool:
        """Whether all that the network has lost is really gone from `net`."""
        return self.plan is not None and self.cut_by is self.plan

    def alive(self, group: str) -> npt.NDArray[np.bool_]:
        """Return which atoms of a group in `whole` are left, shape (size,)."""
        number = next(number for number, item in enumerate(self.whole.groups) if item.id == group)
        mask = np.ones(self.whole.groups[number].size, dtype=np.bool_)
        if self.plan is not None:
            mask[:] = False
            mask[list(self.plan.groups[number].kept)] = True
        return mask

    def written(self) -> Model:
        """Return the whole model with the weights that training left in the network.

        Raises
        ------
        UnsupportedModelError
            If a weight is no longer finite.
        """
        model, values = self.whole.model, weights_now(self.net)
        graph = Graph(inline_functions(model.proto))
        if self.cut_by is not None:
            removed = _removed(self.cut_by)
            whole = {name: value_in(model, graph, name) for name in values}
            values = {
                name: _scattered(old, values[name].cpu(), removed.get(name, {}))
                for name, old in whole.items()
                if old is not None
            }
        return with_values(model, graph, values)


def begin(net: Trainable, analysis: Analysis) -> RunningNetwork:
    """Return a network that has lost nothing yet."""
    atoms = {group.id: np.arange(group.size, dtype=np.int64) for group in analysis.groups}
    return RunningNetwork(analysis, net, analysis, atoms=atoms, names={name: name for name in atoms})


def renewed(analysis: Analysis, model: Model, keep: Mask | None = None) -> Analysis:
    """Return the analysis of a model with other weights, or of what is left of it, made in the same way."""
    if model is analysis.model:
        return analysis
    return analysis.of(model, keep)


def shrunk(running: RunningNetwork, plan: Plan, model: Model | None = None) -> RunningNetwork:
    """Return the network without what a plan removes.

    Parameters
    ----------
    running : RunningNetwork
        Not changed; its module is the result's, too, where it cannot be cut.
    plan : Plan
        For the whole model, whatever its weights were then.
    model : Model, optional
        The whole model; by default as `running` writes it.

    Returns
    -------
    RunningNetwork
        In evaluation mode. A BatchNormalization that was put behind a convolution has no statistics yet.
    """
    whole = renewed(running.whole, model if model is not None else running.written())
    uncut = replace(running, whole=whole, plan=plan)
    if running.plan is not None and not running.cut:
        return uncut
    start = make_reference(whole, plan).start
    keep = keep_mask(whole, plan)
    proto = prune(start, keep)
    put_marks(proto, marks(whole, plan))  # a model that was pruned before names the plan of then
    check_fidelity(start, proto, plan)
    analysis = renewed(whole, whole.model.replaced(proto), keep)
    net = to_torch(analysis.model, unfold=bool(running.net.unfolded))
    removed, places = _removed(plan), _places(analysis)
    matches: dict[str, tuple[str, Ints]] = {}
    for group, planned in zip(whole.groups, plan.groups, strict=True):
        match = _matched(group, planned.kept, removed, places)
        if match is None:
            return uncut
        if match:
            matches[group.id] = match
    if not fits(net, whole, plan):
        return uncut
    return RunningNetwork(
        whole,
        net,
        analysis,
        plan,
        cut_by=plan,
        atoms={name: atoms for name, (_, atoms) in matches.items()},
        names={name: other for name, (other, _) in matches.items()},
    )


_Match = tuple[str, Ints] | tuple[()]
_Places = Mapping[tuple[str, int], Sequence[tuple[Group, Member]]]


def _places(analysis: Analysis) -> _Places:
    """Return the members of all groups by the axis on which they are."""
    places: dict[tuple[str, int], list[tuple[Group, Member]]] = {}
    for group in analysis.groups:
        for member in group.members:
            places.setdefault((member.initializer, member.axis), []).append((group, member))
    return places


def _matched(group: Group, kept: Sequence[int], removed: _Removed, places: _Places) -> _Match | None:
    """Find a group in the cut model: its id there, and which atom each of its atoms was.

    Nothing where a single atom is left, which is no group any more; None if there is no such group.
    """
    for member in group.members:
        left = np.isin(member.atoms, kept)
        atoms, before = member.atoms[left], member.positions[left]
        gone = removed.get(member.initializer, {}).get(member.axis, np.zeros(0, dtype=np.int64))
        now = before - np.searchsorted(gone, before)
        for other, twin in places.get((member.initializer, member.axis), ()):
            if other.size == len(kept) and np.array_equal(twin.positions, now):
                atom_of = np.zeros(other.size, dtype=np.int64)
                atom_of[twin.atoms] = atoms
                return other.id, atom_of
    return () if len(kept) == 1 else None


def fits(net: Trainable, whole: Analysis, plan: Plan) -> bool:
    """Whether every trained tensor of a cut network is a part of one in the whole model."""
    removed = _removed(plan)
    graph = Graph(inline_functions(whole.model.proto))
    for name, value in weights_now(net).items():
        before = value_in(whole.model, graph, name)
        if before is None or _left(before.shape, removed.get(name, {})) != tuple(value.shape):
            return False
    return True


def _left(shape: Sequence[int], removed: Mapping[int, Ints]) -> tuple[int, ...]:
    return tuple(size - len(removed.get(axis, ())) for axis, size in enumerate(shape))


def _scattered(whole: Tensor, part: Tensor, removed: Mapping[int, Ints]) -> Tensor:
    """Return the whole tensor with the values of the part that is left of it."""
    result = whole.clone()
    kept = [np.setdiff1d(np.arange(size), removed.get(axis, ())) for axis, size in enumerate(whole.shape)]
    if kept:
        result[tuple(torch.from_numpy(index) for index in np.ix_(*kept))] = part.to(result.dtype)
    else:
        result.copy_(part)
    return result


def _removed(plan: Plan) -> _Removed:
    """Return the removed positions along each axis of each tensor."""
    gone_along: dict[str, dict[int, list[int]]] = {}
    for group in plan.groups:
        for member in group.members:
            gone_along.setdefault(member.initializer, {}).setdefault(member.axis, []).extend(member.removed)
    return {
        name: {axis: np.unique(np.array(gone, dtype=np.int64)) for axis, gone in axes.items()}
        for name, axes in gone_along.items()
    }
