# SPDX-License-Identifier: Apache-2.0
"""Sites: the nodes of a pruned network whose weights can be refitted, and what they should give.

A site's target is a value of the dense network. That is the node's own output; or, where the output goes
through an addition with another branch, the sum, of which the other branch as the *pruned* network computes
it is taken off: so the node also repairs the error that has come along the other branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array, Floats
from graphprune.recovery.kernels import Kernel, find_kernel
from graphprune.verification.fidelity.expectation import Expectation, Masks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.graph import Node
    from graphprune.plan.schema import Plan
    from graphprune.recovery.editable_model import EditableModel

__all__ = ["Affine", "Norm", "Site", "cut", "find_affine", "find_norms", "find_sites", "norm_map"]


_UNBOUNDED = 1e30
"""No value reaches a bound above this one; exporters write the largest float for none."""


@dataclass(frozen=True, eq=False)
class Affine:
    """What a `BatchNormalization`, or the addition of a constant, makes of a node's output.

    Attributes
    ----------
    value : str
        Its output.
    shift_at : str
        The stored vector through which an intercept can be given to the node; empty where there is none.
    norm : Node or None
        The `BatchNormalization`; None for an addition.
    """

    value: str
    shift_at: str
    norm: Node | None


@dataclass(frozen=True, eq=False)
class Site:
    """One node whose weights are refitted.

    Attributes
    ----------
    node : Node
        Of the pruned graph.
    x : str
        Its input, a value of the pruned graph.
    affine : Affine or None
        What follows it.
    target : str
        A value of the dense graph.
    other : str
        What the pruned graph adds to the output; empty where the target is the node's own output.
    masks : tuple of ndarray of bool
        What is left of the target, by axis.
    gate : tuple of float
        Where nothing but a ReLU or a `Clip` reads what becomes of the output: its lower bound, and its upper one if it
        has any. Else empty.
    """

    node: Node
    kernel: Kernel
    x: str
    affine: Affine | None
    target: str
    other: str
    masks: Masks
    gate: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.label


@dataclass(frozen=True, eq=False)
class Norm:
    """A `BatchNormalization` whose statistics are estimated anew.

    Attributes
    ----------
    x : str
        Its input, a value of the pruned graph.
    mean, variance : str
        Where its statistics are stored.
    """

    node: Node
    x: str
    mean: str
    variance: str


def find_sites(editable: EditableModel, analysis: Analysis, plan: Plan, *, residual: bool = True) -> list[Site]:
    """Return the sites of a pruned network, in the order in which the network runs them.

    Only nodes that pruning has reached are there: what they read has changed, or lost channels. Without `residual`,
    every target is the node's own output.
    """
    expectation = Expectation(analysis, plan)
    reached = _reached(editable, analysis, expectation)
    dense = {name: node for node in analysis.graph.nodes for name in node.outputs if name}
    kernels: dict[int, Kernel] = {}
    for node in editable.graph.nodes:
        twin = dense.get(node.outputs[0]) if node.outputs else None
        if node.index not in reached or twin is None or twin.op_type != node.op_type:
            continue
        kernel = find_kernel(editable, node)
        if kernel is not None and node.inputs[0] in editable.graph.producer:
            kernels[node.index] = kernel
    sites = []
    for index, kernel in kernels.items():
        later = [other for other in kernels if other > index] if residual else None
        site = _site(editable, expectation, editable.graph.nodes[index], kernel, later)
        if site is not None:
            sites.append(site)
    return sites


def _reached(editable: EditableModel, analysis: Analysis, expectation: Expectation) -> set[int]:
    """Return nodes of the pruned graph with something that the plan touched among their ancestors or in themselves.

    A node that reads something else than it did, since what it read has vanished, is one.
    """
    read = {name: node.inputs for node in analysis.graph.nodes for name in node.outputs if name}
    touched = {name for node in analysis.graph.nodes if expectation.touches(node) for name in node.outputs}
    changed: set[str] = set()
    reached: set[int] = set()
    for node in editable.graph.nodes:
        names = (*node.inputs, *node.captured)
        moved = any(name in editable.graph.producer and name not in editable.constant for name in _new(node, read))
        if moved or any(name in changed for name in names) or any(name in touched for name in node.outputs):
            reached.add(node.index)
            changed.update(node.outputs)
    return reached


def _new(node: Node, read: Mapping[str, Sequence[str]]) -> set[str]:
    """Return what a node reads that the node of the dense graph with the same output does not."""
    return set(node.inputs).difference(*(read[name] for name in node.outputs if name in read))


def _site(
    editable: EditableModel, expectation: Expectation, node: Node, kernel: Kernel, later: list[int] | None
) -> Site | None:
    """Return how one node is refitted; None where its output is not comparable with the dense one.

    With `later`, the sites behind it, the target may be a sum that the output goes into.
    """
    affine = find_affine(editable, node)
    target, other = node.outputs[0], ""
    if later is not None:
        end = affine.value if affine else node.outputs[0]
        added = _added(editable, end, later)
        if added is not None:
            target, other = added
    masks = expectation.activation(target)
    if masks is None:
        return None
    channel = masks[1] if node.op_type == "Conv" else masks[-1]
    if int(channel.sum()) != kernel.outputs:
        return None
    end = target if other or affine is None else affine.value
    return Site(node, kernel, node.inputs[0], affine, target, other, masks, _gate(editable, end))


def _gate(editable: EditableModel, value: str) -> tuple[float, ...]:
    """Return the bounds of the ReLU or `Clip` that alone reads a value, the upper one if there is any."""
    reader = _only_reader(editable, value)
    if reader is None or reader.domain or reader.op_type not in ("Relu", "Clip"):
        return ()
    if reader.op_type == "Relu":
        return (0.0,)
    lower, upper = _bound(editable, reader, 1, "min"), _bound(editable, reader, 2, "max")
    if lower is None or upper is None or not lower < upper or lower == -np.inf:
        return ()
    return (lower,) if upper > _UNBOUNDED else (lower, upper)


def _bound(editable: EditableModel, clip: Node, slot: int, name: str) -> float | None:
    """Return a bound of a `Clip`, infinite where it has none; None where it is computed."""
    none = np.inf if slot == 2 else -np.inf
    if slot < len(clip.inputs) and clip.inputs[slot]:
        return float(editable.read(clip.inputs[slot])) if editable.stored(clip.inputs[slot]) is not None else None
    return float(clip.attribute(name, none))


def _only_reader(editable: EditableModel, value: str) -> Node | None:
    """Return the one node that reads a value; None where others do, or the graph's user."""
    graph = editable.graph
    readers = graph.consumers.get(value, [])
    if len(readers) != 1 or value in graph.outputs or value in graph.captured:
        return None
    return readers[0][0]


def find_affine(editable: EditableModel, node: Node) -> Affine | None:
    """Return what follows a node, if that is a fixed map per channel."""
    reader = _only_reader(editable, node.outputs[0])
    if reader is None or reader.domain:
        return None
    if reader.op_type == "BatchNormalization" and reader.inputs[0] == node.outputs[0]:
        if not all(editable.stored(name) is not None for name in reader.inputs[1:5]) or reader.attribute(
            "training_mode", 0
        ):
            return None
        return Affine(reader.outputs[0], reader.inputs[3] if editable.own(reader.inputs[3]) else "", reader)
    if reader.op_type == "Add" and node.op_type == "MatMul":
        constant = next((name for name in reader.inputs if name != node.outputs[0]), "")
        tensor = editable.stored(constant) if constant else None
        if tensor is not None and tuple(tensor.dims)[-1:] == (int(np.prod(tensor.dims)),) and editable.own(constant):
            return Affine(reader.outputs[0], constant, None)
    return None


def norm_map(editable: EditableModel, norm: Node) -> tuple[Floats, Floats]:
    """Return scale and shift of a `BatchNormalization` that uses its stored statistics, each of shape (channels,)."""
    gamma, beta, mean, variance = (editable.read(name).astype(np.float64) for name in norm.inputs[1:5])
    scale: Floats = gamma / np.sqrt(variance + norm.attribute("epsilon", 1e-5))
    return scale, beta - scale * mean


def _added(editable: EditableModel, value: str, later: list[int]) -> tuple[str, str] | None:
    """Return the sum that a value goes into, and its other operand, if no later site has a part in that one."""
    reader = _only_reader(editable, value)
    if reader is None or reader.domain or reader.op_type != "Add":
        return None
    other = next((name for name in reader.inputs if name != value), "")
    graph = editable.graph
    if not other or other not in graph.producer or other in editable.constant:
        return None
    pending, seen, sites = [other], set(), set(later)
    while pending:
        maker = graph.producer.get(pending.pop())
        if maker is None or maker.index in seen:
            continue
        if maker.index in sites:
            return None
        seen.add(maker.index)
        pending.extend((*maker.inputs, *maker.captured))
    return reader.outputs[0], other


def find_norms(editable: EditableModel, reached_from: Sequence[Site]) -> list[Norm]:
    """Return the normalisations behind refittable nodes, in the order in which the network runs them."""
    norms = []
    for site in reached_from:
        norm = site.affine.norm if site.affine else None
        if norm is not None and editable.own(norm.inputs[3]) and editable.own(norm.inputs[4]):
            norms.append(Norm(norm, norm.inputs[0], norm.inputs[3], norm.inputs[4]))
    return norms


def cut(value: Array, masks: Masks) -> Array:
    """Return what is left of a value of the dense network."""
    for axis, mask in enumerate(masks):
        if not mask.all():
            value = np.compress(mask, value, axis=axis)
    return value
