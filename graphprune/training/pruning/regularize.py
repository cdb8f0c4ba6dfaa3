# SPDX-License-Identifier: Apache-2.0
"""Regularisers: whole channels are drawn towards zero while a network trains, so that losing them costs little.

``bn-l1`` pulls at the scales of BatchNormalizations, ``group-norm`` at all weights of a coupled channel at once, and
``growing`` at those channels that are going to be removed, ever harder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphprune.analysis.analysis import Analysis
from graphprune.choices import Regularization
from graphprune.errors import UsageError, quote
from graphprune.training.bridge import Trainable
from graphprune.training.hooks import Hook, Moment
from graphprune.training.pruning.tensor_slices import SCALE, STATISTIC, Slice, find_slices, norms, sums

__all__ = ["STRENGTH", "Regularizer"]

STRENGTH: dict[str, float] = {"bn-l1": 1e-4, "group-norm": 1e-4, "growing": 1.0}
"""Strength of each regulariser where none is given."""

_SMALL = 1e-12


class Regularizer(Hook):
    """Adds the gradient of a penalty after the gradient of the loss was clipped.

    Parameters
    ----------
    net : Trainable
        What is trained.
    analysis : Analysis
        Of the same model.
    kind : {"bn-l1", "group-norm", "growing"}
        ``bn-l1``: ``strength * sum |scale|``; a group without BatchNormalization has the penalty of ``group-norm``.
        ``group-norm``: ``strength * sum over channels of sqrt(elements) * norm``, the norm being taken over all that
        makes and reads a channel, so that an element is pulled about as hard as a scale is by ``bn-l1``.
        ``growing``: ``strength * t / 2 * norm ** 2``, for the channels in `going` alone, where `t` grows from 0 to 1.
    strength : float, optional
    going : mapping of str to ndarray of bool, optional
        For ``growing``: which atoms of each group are to go. By default the half with the lowest norms.

    Raises
    ------
    UsageError
        If there is no such kind, a strength is negative, or the model has no group.

    Source: bn-l1: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    arXiv:1708.06519. group-norm: the group lasso over coupled parameters, after Fang et al., DepGraph, CVPR 2023,
    arXiv:2301.12900. growing: Wang et al., Neural Pruning via Growing Regularization, ICLR 2021, arXiv:2012.09243;
    linear growth over the whole run is ours.
    """

    def __init__(
        self,
        net: Trainable,
        analysis: Analysis,
        kind: str,
        strength: float | None = None,
        going: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        if kind not in get_args(Regularization):
            raise UsageError(f"there is no regulariser {quote(kind)}: there are {', '.join(get_args(Regularization))}")
        if strength is not None and strength < 0:
            raise UsageError(f"the strength of a regulariser is {strength:g}, but must not be negative")
        if not analysis.groups:
            raise UsageError("no channel of this model may be removed, so there is nothing to regularise")
        self.kind = kind
        self.strength = STRENGTH[kind] if strength is None else strength
        self.groups = analysis.groups
        self.slices = find_slices(net, analysis)
        self.going = {} if kind != "growing" else dict(going) if going is not None else self._lower_half()

    def _lower_half(self) -> dict[str, npt.NDArray[np.bool_]]:
        lower_half = {}
        for group in self.groups:
            order = np.argsort(self.norm(group.id).detach().cpu().numpy(), kind="stable")
            mask = np.zeros(group.size, dtype=np.bool_)
            mask[order[: group.size // 2]] = True
            lower_half[group.id] = mask
        return lower_half

    def norm(self, group: str) -> Tensor:
        """Return the norm of every atom of a group, shape (size,)."""
        return norms(next(item for item in self.groups if item.id == group), self.slices[group])

    def scales(self, group: str) -> Tensor | None:
        """Return the mean |scale| over the BatchNormalizations of every atom, shape (size,); None without any."""
        scales = [item for item in self.slices[group] if item.part == SCALE]
        if not scales:
            return None
        size = next(item.size for item in self.groups if item.id == group)
        total = scales[0].tensor.new_zeros(size)
        count = scales[0].tensor.new_zeros(size)
        for item in scales:
            atoms, rows = item.atoms.to(total.device), item.rows()
            total = total.index_add(0, atoms, rows.abs().sum(1))
            count = count.index_add(0, atoms, torch.ones_like(rows[:, 0]))
        return total / count.clamp_min(1.0)

    def penalty(self, progress: float = 1.0) -> Tensor:
        """Return the penalty, a scalar.

        Parameters
        ----------
        progress : float
            Share of the training that is done.
        """
        parts = []
        for group in self.groups:
            slices = [item for item in self.slices[group.id] if item.part != STATISTIC]
            scales = [item for item in slices if item.part == SCALE] if self.kind == "bn-l1" else []
            if scales:
                parts += [item.rows().abs().sum() for item in scales]
            elif slices:
                parts.append(self._of_norms(group.id, slices, group.size, progress))
        return self.strength * torch.stack(parts).sum() if parts else torch.zeros(())

    def _of_norms(self, group: str, slices: Sequence[Slice], size: int, progress: float) -> Tensor:
        squares, count = sums(slices, size)
        if self.kind == "growing":
            chosen = torch.from_numpy(self.going[group]).to(squares)
            return 0.5 * progress * (chosen * squares).sum()
        return (count * squares + _SMALL).sqrt().sum()

    def rewrite(self, moment: Moment) -> None:
        """Add the gradient of the penalty."""
        penalty = self.penalty(moment.step / max(1, moment.total))
        tensors = {id(item.tensor): item.tensor for slices in self.slices.values() for item in slices}
        wanted = [value for value in tensors.values() if value.grad is not None]
        if not wanted or not penalty.requires_grad:
            return
        for value, gradient in zip(
            wanted, torch.autograd.grad(penalty, wanted, materialize_grads=True, allow_unused=True), strict=True
        ):
            if value.grad is not None:
                value.grad.add_(gradient)
