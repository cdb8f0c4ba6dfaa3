# SPDX-License-Identifier: Apache-2.0
"""Gates: a factor per channel of a coupled group, at every place that sums over its channels.

A gate of ones changes nothing; a zero masks the channel exactly as the oracle does (`verification.oracle`). So
the gradient of a loss with respect to a gate is the first-order effect of removing the channel, with the
contributions of all consumers added with their signs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, fx, nn

from graphprune.analysis.analysis import Analysis
from graphprune.analysis.groups import Group
from graphprune.array_types import Ints
from graphprune.errors import UnsupportedModelError, UsageError, quote
from graphprune.labels.space import Contraction
from graphprune.training.bridge import Trainable
from graphprune.training.sample_axes import SampleAxis, find_sample_axes

__all__ = ["Gate", "attach_gates", "gateable", "is_passed", "samples_at", "tell_samples", "touched"]


class Gate(nn.Module):
    """The factors of one group.

    Parameters
    ----------
    size : int
        Atoms of the group.

    Attributes
    ----------
    value : Tensor, shape (size,) or (n, size)
        Factor of each atom, or of each atom for each of `n` samples. Set it to whatever is wanted: a
        parameter to be learned, a mask, a leaf whose gradient is asked for.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.value: Tensor = torch.ones(size)

    def watch(self, samples: int | None = None) -> Tensor:
        """Let the next pass use fresh ones, and return them: after `backward` their ``grad`` is the answer.

        Parameters
        ----------
        samples : int, optional
            One row for each sample, so that the gradients of samples stay apart. Then the loss has to be a
            sum over samples, and no normalisation may mix them.
        """
        shape = (self.size,) if samples is None else (samples, self.size)
        self.value = torch.ones(shape, requires_grad=True)
        return self.value

    def forward(
        self,
        x: Tensor,
        atoms: Tensor,
        axis: int,
        predicted: Tensor | None = None,
        samples: tuple[int, int, int] = (0, 1, 1),
    ) -> Tensor:
        """Multiply `x` along `axis`; `atoms` gives the atom of each slice, `size` where a slice has none.

        What the network itself predicts for each sample (`pruning.predictors`) is a further factor. `samples` says
        where samples lie on `x` (the fields of a `SampleAxis`).
        """
        value = self.value.to(x.device, x.dtype)
        value = value if predicted is None else value * predicted
        whole = torch.cat([value, value.new_ones((*value.shape[:-1], 1))], dim=-1)
        factor = whole[..., atoms.to(x.device)]
        shape = [1] * x.dim()
        shape[axis] = len(atoms)
        if factor.dim() == 2:
            factor = self._spread(x, factor, axis, SampleAxis(*samples))
            shape[samples[0]] = len(factor)
            factor = factor.T if axis < samples[0] else factor
        return x * factor.reshape(shape)

    def _spread(self, x: Tensor, factor: Tensor, axis: int, samples: SampleAxis) -> Tensor:
        """Return a row of factors for every position of `x` on the axis of its samples."""
        if axis == samples.axis or samples.count(x) != len(factor):
            raise UsageError("samples cannot have gates of their own in this model; use batches of one")
        return factor if samples.outer == samples.inner == 1 else factor[samples.owners(len(factor)).to(x.device)]


def attach_gates(
    net: Trainable, analysis: Analysis, groups: Iterable[str] | None = None, *, passing: bool = True
) -> dict[str, Gate]:
    """Insert gates into a module.

    Parameters
    ----------
    net : Trainable
        Changed in place; its outputs stay what they are.
    analysis : Analysis
        Of the same model.
    groups : iterable of str, optional
        Ids of the groups that get a gate; all by default.
    passing : bool
        Also before layers that only pass a channel on, as depthwise convolutions do. That makes no difference for
        gates that are shut, but a factor would act twice, and a BatchNormalization behind would see it.

    Returns
    -------
    dict of str to Gate
        By group id.

    Raises
    ------
    UsageError
        If there is no such group.
    UnsupportedModelError
        If a channel is summed over inside a branch of the model.
    """
    numbers = {group.id: number for number, group in enumerate(analysis.groups)}
    wanted = list(numbers) if groups is None else list(groups)
    unknown = [name for name in wanted if name not in numbers]
    if unknown:
        raise UsageError(f"the model has no group {quote(unknown[0])}", hint="`graphprune inspect` lists the groups")
    gates = {numbers[name]: Gate(analysis.groups[numbers[name]].size) for name in wanted}
    for number, gate in gates.items():
        net.module.add_submodule(f"gate_{number}", gate)
    for contraction in analysis.scope.space.contractions:
        for number, atoms in touched(analysis, contraction).items():
            if number in gates and (passing or not is_passed(analysis.groups[number], contraction)):
                _insert(net, contraction, f"gate_{number}", atoms, _axis(analysis, contraction))
    net.module.recompile()
    return {analysis.groups[number].id: gate for number, gate in gates.items()}


def gateable(net: Trainable, analysis: Analysis) -> list[str]:
    """Return the ids of the groups that can get gates: all places that sum over their channels can be reached.

    Parameters
    ----------
    net : Trainable
        Without any gates so far.
    analysis : Analysis
        Of the same model.
    """
    reached: set[int] = set()
    missed: set[int] = set()
    for contraction in analysis.scope.space.contractions:
        node = contraction.node
        own, source = net.graph.producer.get(node.outputs[0]), net.values.get(node.inputs[contraction.slot])
        readers = () if own is None or source is None else net.made[own.index]
        can = any(source in item.all_input_nodes for item in readers)
        (reached if can else missed).update(touched(analysis, contraction))
    return [group.id for number, group in enumerate(analysis.groups) if number in reached - missed]


def tell_samples(net: Trainable, gates: Mapping[str, Gate], feeds: Mapping[str, Tensor]) -> dict[str, Gate]:
    """Let gates know where samples lie on the values that they multiply; return those that may tell samples apart.

    Parameters
    ----------
    net : Trainable
        With the gates; its graph is changed in place.
    gates : mapping of str to Gate
    feeds : mapping of str to Tensor
        At least one sample.
    """
    held = dict(net.module.named_children())
    names = {id(gate): name for name, gate in gates.items()}
    places = [node for node in net.module.graph.nodes if node.op == "call_module"]
    own = {node: names[id(held[node.target])] for node in places if id(held.get(node.target)) in names}
    values = {name: gate.value for name, gate in gates.items()}
    for gate in gates.values():
        gate.value = torch.ones(gate.size)
    sample_axes = find_sample_axes(net, own, feeds)
    for name, value in values.items():
        gates[name].value = value
    mixed: set[str] = set()
    for node, name in own.items():
        axis = sample_axes.get(node)
        if axis is None or axis.axis == node.args[2]:
            mixed.add(name)
        else:
            node.kwargs = {**node.kwargs, "samples": (axis.axis, axis.outer, axis.inner)}
    net.module.recompile()
    return {name: gate for name, gate in gates.items() if name not in mixed}


def is_passed(group: Group, contraction: Contraction) -> bool:
    """Whether a layer only passes the channels of a group on, weighed one by one: a depthwise convolution."""
    roles = {member.role for member in group.members if member.node == contraction.node.label}
    return "per_channel" in roles and "in" not in roles


def samples_at(net: Trainable, contraction: Contraction, group: int) -> SampleAxis | None:
    """Return where samples lie on what the gate of a group multiplies at one place; None where it does not."""
    own = net.graph.producer[contraction.node.outputs[0]]
    held = _name(f"gate_{group}", own.index, contraction.slot)
    for node in net.module.graph.nodes:
        if node.op == "call_module" and len(node.args) > 2 and getattr(node.args[1], "target", None) == held:
            return SampleAxis(*node.kwargs.get("samples", (0,)))
    return None


def touched(analysis: Analysis, contraction: Contraction) -> dict[int, Ints]:
    """Return for each group on the axis the atom of every slice, the group's size where it is another's."""
    grouping = analysis.grouping
    atoms = grouping.atom_of[contraction.labels.expand()]
    atoms_of: dict[int, Ints] = {}
    for number in np.unique(grouping.group_of[atoms[atoms >= 0]]).tolist():
        own = np.full(len(atoms), int(grouping.sizes[number]), dtype=np.int64)
        mine = np.flatnonzero(atoms >= 0)
        mine = mine[grouping.group_of[atoms[mine]] == number]
        own[mine] = grouping.index_of[atoms[mine]]
        atoms_of[number] = own
    return atoms_of


def _axis(analysis: Analysis, contraction: Contraction) -> int:
    """Return the axis of the channels, counted from the front."""
    return contraction.axis % len(analysis.shapes.dims[contraction.node.inputs[contraction.slot]])


def _insert(net: Trainable, contraction: Contraction, gate: str, atoms: Ints, axis: int) -> None:
    """Put a gate before one input of one node."""
    node, value = contraction.node, contraction.node.inputs[contraction.slot]
    own = net.graph.producer.get(node.outputs[0])
    source = net.values.get(value)
    if own is None or source is None:
        raise UnsupportedModelError(f"node {quote(node.label)} lies in a branch, where channels cannot be gated")
    readers = [item for item in net.made[own.index] if source in item.all_input_nodes]
    source = _latest(net, own.index, source) if not readers else source
    readers = readers or [item for item in net.made[own.index] if source in item.all_input_nodes]
    if not readers:
        raise UnsupportedModelError(f"node {quote(node.label)} ({node.op_type}) cannot be gated")
    name = _name(gate, own.index, contraction.slot)
    net.module.register_buffer(name, torch.from_numpy(atoms), persistent=False)
    graph = net.module.graph
    with graph.inserting_before(readers[0]):
        held = graph.get_attr(name)
        gated = graph.call_module(gate, (source, held, axis))
    gated.meta["gate_of"] = source
    for reader in readers:
        reader.replace_input_with(source, gated)


def _name(gate: str, index: int, slot: int) -> str:
    """Return under which name the module holds the atoms of a place."""
    return f"{gate}_atoms_{index}_{slot}"


def _latest(net: Trainable, index: int, source: fx.Node) -> fx.Node:
    """Return what a node reads in place of a value that was gated before, for another group."""
    for item in net.made[index]:
        for read in item.all_input_nodes:
            origin: object = read
            while isinstance(origin, fx.Node) and "gate_of" in origin.meta:
                origin = origin.meta["gate_of"]
                if origin is source:
                    return read
    return source
