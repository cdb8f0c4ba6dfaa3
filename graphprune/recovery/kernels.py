# SPDX-License-Identifier: Apache-2.0
"""Kernels: the weights of a `Conv`, `Gemm` or `MatMul` as matrices that act on rows, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphprune.array_types import Array, Floats
from graphprune.data.windows import Dense, Window

if TYPE_CHECKING:
    from graphprune.model.graph import Node
    from graphprune.recovery.editable_model import EditableModel

__all__ = ["MOST_COLUMNS", "Kernel", "find_kernel"]


MOST_COLUMNS = 8192
"""Of a layer with longer rows no second moments are taken: they would fill the memory."""

_AUTO_UPPER = "SAME_UPPER"


@dataclass(frozen=True, eq=False)
class Kernel:
    """The weights of one node.

    Attributes
    ----------
    tensor : str
        Where they are stored.
    shape : tuple of int
        Of the weight as the node reads it.
    order : tuple of int
        Axes of the stored tensor in the order in which the node reads them.
    flip : bool
        The outputs are the first axis of a matrix (`Conv`, `Gemm` with transB).
    scale : float
        What the node multiplies the weights with (alpha of `Gemm`).
    bias_scale : float
        The same for its bias (beta).
    view : Window or Dense
        How its inputs and outputs become rows.
    """

    tensor: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    flip: bool
    scale: float
    bias_scale: float
    view: Window | Dense

    @property
    def columns(self) -> int:
        """Rows of inputs have this many entries per group."""
        return int(np.prod(self.shape[1:])) if self.flip else self.shape[0]

    @property
    def outputs(self) -> int:
        """Outputs of all groups."""
        return self.shape[0] if self.flip else self.shape[1]

    def matrix(self, stored: Array) -> Floats:
        """Return the weights, shape (groups, columns, outputs / groups)."""
        weight = stored.astype(np.float64).transpose(self.order) * self.scale
        groups = self.view.groups
        if not self.flip:
            return weight[None]
        return weight.reshape(groups, self.outputs // groups, -1).transpose(0, 2, 1)

    def stored(self, matrix: Floats) -> Floats:
        """Return what :meth:`matrix` was made of."""
        weight = matrix.transpose(0, 2, 1).reshape(self.shape) if self.flip else matrix[0]
        return (weight / self.scale).transpose(np.argsort(self.order))


def find_kernel(editable: EditableModel, node: Node) -> Kernel | None:
    """Return the weights of a node; None where it has none of its own that can be replaced."""
    if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return None
    traced = _trace(editable, node.inputs[1])
    if traced is None:
        return None
    tensor, order = traced
    dims = editable.read(tensor).shape
    shape = tuple(dims[axis] for axis in order)
    if node.op_type == "Conv":
        window = _window(node, shape)
        return None if window is None else Kernel(tensor, shape, order, True, 1.0, 1.0, window)
    if len(shape) != 2:
        return None
    if node.op_type == "MatMul":
        return Kernel(tensor, shape, order, False, 1.0, 1.0, Dense())
    alpha, beta = float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
    if node.attribute("transA", 0) or not alpha or not beta:
        return None
    return Kernel(tensor, shape, order, bool(node.attribute("transB", 0)), alpha, beta, Dense())


def _trace(editable: EditableModel, name: str) -> tuple[str, tuple[int, ...]] | None:
    """Follow `Identity` and `Transpose` back to a stored tensor that nobody else reads."""
    order: tuple[int, ...] | None = None
    while editable.stored(name) is None:
        node = editable.graph.producer.get(name)
        if node is None or node.domain or node.op_type not in ("Identity", "Transpose"):
            return None
        if len(editable.graph.consumers.get(name, [])) != 1 or name in editable.graph.outputs:
            return None
        if node.op_type == "Transpose":
            perm = node.attribute("perm")
            if perm is None:
                return None
            order = tuple(perm) if order is None else tuple(perm[axis] for axis in order)
        name = node.inputs[0]
    if not editable.own(name):
        return None
    return name, order or tuple(range(editable.read(name).ndim))


def _window(node: Node, shape: tuple[int, ...]) -> Window | None:
    """Return the window of a convolution; None where its padding depends on the input's size."""
    rank = len(shape) - 2
    if rank < 1:
        return None
    auto = node.attribute("auto_pad", "NOTSET")
    strides = tuple(node.attribute("strides", [1] * rank))
    dilations = tuple(node.attribute("dilations", [1] * rank))
    before = tuple(node.attribute("pads", [0] * (2 * rank))[:rank])
    if auto.startswith("SAME"):
        # With a stride of 1 the amount does not depend on the size of the input.
        if any(stride != 1 for stride in strides):
            return None
        total = [(size - 1) * dilation for size, dilation in zip(shape[2:], dilations, strict=True)]
        before = tuple(amount // 2 if auto == _AUTO_UPPER else amount - amount // 2 for amount in total)
    elif auto == "VALID":
        before = (0,) * rank
    return Window(shape[2:], strides, dilations, before, int(node.attribute("group", 1)))
