# SPDX-License-Identifier: Apache-2.0
"""Ties: channels of a cluster that learn the same and are drawn together until they are one.

In a loop of your own::

    ties = Ties(net, analysis, {"g003": clusters})
    loss.backward()
    ties.rewrite(pull)              # gradients of all that makes the channels
    optimizer.step()
    ...
    ties.project()                  # now they are equal, and `exact_merges` takes them out
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphprune.analysis.analysis import Analysis
from graphprune.array_types import Ints
from graphprune.errors import InternalError, quote
from graphprune.training.bridge import Trainable
from graphprune.training.pruning.tensor_slices import STATISTIC, Slice, find_slices

__all__ = ["Ties", "pull_for"]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Slices of one tensor, in the order of the group's atoms; those of a cluster are to become equal."""

    tensor: Tensor
    axis: int
    positions: Tensor
    """Shape (size * k,): those of an atom stand side by side."""
    clusters: Tensor
    """Shape (size,)."""
    vector: bool
    statistic: bool

    def of(self, tensor: Tensor) -> Tensor:
        """Return the slices of a tensor of the same shape, as rows, shape (size, elements)."""
        return tensor.movedim(self.axis, 0).index_select(0, self.positions).reshape(len(self.clusters), -1)

    def put(self, tensor: Tensor, rows: Tensor) -> None:
        """Write rows back."""
        view = tensor.movedim(self.axis, 0)
        view.index_copy_(0, self.positions, rows.reshape(len(self.positions), *view.shape[1:]).to(tensor.dtype))

    def means(self, rows: Tensor) -> Tensor:
        """Return for each row the mean of its cluster."""
        number = int(self.clusters.max()) + 1
        count = torch.bincount(self.clusters, minlength=number).to(rows.dtype)
        total = torch.zeros(number, rows.shape[1], dtype=rows.dtype, device=rows.device)
        total.index_add_(0, self.clusters, rows)
        return (total / count[:, None])[self.clusters]


class Ties:
    """The update rule of centripetal SGD on coupled groups.

    For each row P_j of all that makes the channels of a group (filters, biases, scales and shifts), with gradient G_j
    and cluster H, the optimiser sees

        mean of G over H  +  decay * P_j  +  pull * (P_j - mean of P over H)

    Weights that read the channels learn freely. Under plain SGD of rate t, without momentum, the distance of P_j from
    its cluster's mean shrinks by exactly ``1 - t * (decay + pull)`` per step, whatever the data is. A channel that is
    alone in its cluster learns as ever.

    Parameters
    ----------
    net : Trainable
    analysis : Analysis
        Of the same model.
    clusters : mapping of str to ndarray of int64, shape (size,)
        By group, the cluster of each atom, numbered from 0 without gaps. Groups that are not named are left alone.

    Source: Ding et al., Centripetal SGD for Pruning Very Deep Convolutional Networks With Complicated Structure,
    CVPR 2019, arXiv:1904.03837. Coupled layers are tied by one clustering per group.
    """

    def __init__(self, net: Trainable, analysis: Analysis, clusters: Mapping[str, Ints]) -> None:
        slices = find_slices(net, analysis)
        self.clusters = dict(clusters)
        self._rows = [
            _rows(item, torch.from_numpy(np.asarray(number, dtype=np.int64)))
            for group, number in clusters.items()
            if len(np.unique(number)) < len(number)
            for item in slices[group]
            if item.role != "in"
        ]

    @property
    def parameters(self) -> frozenset[int]:
        """Ids of the parameters that are tied."""
        return frozenset(id(rows.tensor) for rows in self._rows)

    @torch.no_grad()
    def rewrite(self, pull: float, decay: float = 0.0, vectors: float = 1.0) -> None:
        """Replace the gradients of the tied parameters.

        Parameters
        ----------
        pull : float
            Strength of the centripetal term, in units of weight decay.
        decay : float
            Weight decay of tied weights of rank 2 and more. Leave it at 0 where the optimiser decays them.
        vectors : float
            Factor on `pull` for biases, scales and shifts.
        """
        decayed: set[int] = set()
        for rows in self._rows:
            gradient = rows.tensor.grad
            if gradient is None:
                continue
            own, weight = rows.of(gradient), rows.of(rows.tensor)
            strength = pull * vectors if rows.vector else pull
            new = rows.means(own) + strength * (weight - rows.means(weight))
            if decay and not rows.vector and id(rows.tensor) not in decayed:
                new = new + decay * weight
            rows.put(gradient, new)
            decayed.add(id(rows.tensor))  # a tensor that is tied along two axes decays once

    @torch.no_grad()
    def deviation(self) -> float:
        """Return the largest distance of a row from its cluster's mean, in units of the largest row of its tensor."""
        worst = 0.0
        for rows in self._rows:
            own = rows.of(rows.tensor)
            scale = float(own.norm(dim=1).max())
            if scale > 0:
                worst = max(worst, float((own - rows.means(own)).norm(dim=1).max()) / scale)
        return worst

    @torch.no_grad()
    def project(self) -> float:
        """Set every row, running statistics too, to the mean of its cluster; return the deviation before."""
        before = self.deviation()
        for rows in self._rows:
            rows.put(rows.tensor, rows.means(rows.of(rows.tensor)))
        return before


def _rows(item: Slice, clusters: Tensor) -> _Rows:
    """Put the slices of a tensor into the order of atoms."""
    size = len(clusters)
    counts = torch.bincount(item.atoms.cpu(), minlength=size)
    if int(counts.min()) != int(counts.max()):
        raise InternalError(f"the channels of {quote(item.name)} differ in how many slices they have")
    order = np.lexsort((item.positions.cpu().numpy(), item.atoms.cpu().numpy()))
    device = item.tensor.device
    positions = item.positions.cpu()[torch.from_numpy(order)].to(device)
    return _Rows(item.tensor, item.axis, positions, clusters.to(device), item.tensor.dim() < 2, item.part == STATISTIC)


def pull_for(tolerance: float, rates: float, momentum: float = 0.0, decay: float = 0.0) -> float:
    """Return the strength with which clusters come together to a part of `tolerance` of what they were apart.

    Parameters
    ----------
    rates : float
        Sum of the learning rates of all steps.
    momentum, decay : float
        Of the optimiser.

    Notes
    -----
    From the law of :class:`Ties`, ``exp(-(decay + pull) * rates / (1 - momentum)) = tolerance``, which holds for small
    steps.
    """
    return max(0.0, float(np.log(1.0 / tolerance)) * (1.0 - momentum) / rates - decay)
