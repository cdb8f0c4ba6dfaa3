# SPDX-License-Identifier: Apache-2.0
"""Hints: a pruned network learns what the original's blocks give, and not its outputs alone.

An image that was made shows no object, and the scores that a classifier gives it say little about what the layers
before them do. What a block gives does: so the channels that are left at its end are drawn towards those of the
original, while all layers learn together.

Source: the hints of Romero et al., FitNets, ICLR 2015, arXiv:1412.6550, section 2.2. There a layer maps the channels of
one network to those of the other; here it is known which ones were kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphprune.recovery.blocks import find_blocks
from graphprune.recovery.editable_model import EditableModel
from graphprune.training.hooks import Hook, Moment
from graphprune.training.inner_values import Tap, insert_tap
from graphprune.training.loader import Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphprune.analysis.analysis import Analysis
    from graphprune.model.load import Model
    from graphprune.plan.schema import Plan
    from graphprune.training.trainer import Task
    from graphprune.verification.fidelity.expectation import Masks

__all__ = ["BlockHints", "Hint", "find_hints"]

_SHARE = 3.0
"""What hints weigh at the start of a run, for what the outputs weigh."""
_WEIGHED = 256
"""Samples by which that is settled."""
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class Hint:
    """A value that both networks have.

    Attributes
    ----------
    name : str
    kept : tuple of ndarray of bool
        What the pruned network has of it, by axis.
    """

    name: str
    kept: Masks


def find_hints(analysis: Analysis, plan: Plan, pruned: Model) -> tuple[Hint, ...]:
    """Return the ends of the blocks that pruning has reached, but for outputs, which are learned in any case.

    Parameters
    ----------
    analysis : Analysis
        Of the original.
    plan : Plan
    pruned : Model
        What the plan left of it, recovered or not.
    """
    editable = EditableModel(pruned)
    return tuple(
        Hint(name, kept)
        for block in find_blocks(editable, analysis, plan)
        for name, kept in zip(block.outputs, block.masks, strict=True)
        if name not in editable.graph.outputs
    )


class BlockHints(Hook):
    """Adds the squared error of the hints to the loss, relative to how far the teacher's values spread.

    Parameters
    ----------
    task : Task
        With a teacher. Taps are put into both of its networks.
    hints : sequence of Hint
        Those that a network does not compute as a value of its own are passed over.

    Attributes
    ----------
    hinted : int
        How many values are compared.
    weight : float
        Of the mean of all hints, beside the loss of the outputs: what makes them `_SHARE` times as much at the start.
    """

    def __init__(self, task: Task, hints: Sequence[Hint]) -> None:
        assert task.teacher is not None  # noqa: S101 - whoever asks for hints has said whose
        nets = task.net, task.teacher
        self._hints = [hint for hint in hints if all(hint.name in net.values for net in nets)]
        self._taps = [(Tap(), Tap()) for _ in self._hints]
        for number, (hint, taps) in enumerate(zip(self._hints, self._taps, strict=True)):
            for net, tap in zip(nets, taps, strict=True):
                insert_tap(net, hint.name, tap, f"hint_{number}")
        for net in nets:
            net.module.recompile()
        self.hinted = len(self._hints)
        self.weight = self._settled(task)

    @torch.no_grad()
    def _settled(self, task: Task) -> float:
        index = np.arange(min(len(task.loader.source), _WEIGHED), dtype=np.int64)
        samples = Samples.of(task.loader.source.read(index)).to(task.device)
        target = task.teach(samples)
        task.net.module.eval()
        with task.on_device():
            usual = task.objective(task.net.run(samples.feeds), target, samples.labels)
        return _SHARE * float(usual) / max(float(self._error()), _LEAST) if self._hints else 0.0

    def loss(self, moment: Moment, usual: Tensor) -> Tensor:
        """Return the loss of the step with the hints in it."""
        return usual + self.weight * self._error() if self._hints else usual

    def rest(self) -> None:
        """Forget what the last batch gave."""
        for taps in self._taps:
            for tap in taps:
                tap.value = None

    def _error(self) -> Tensor:
        """Return the mean error of all hints over the batch that both networks have just run."""
        return torch.stack(
            [
                _distance(own.take(), other.take(), hint.kept)
                for hint, (own, other) in zip(self._hints, self._taps, strict=True)
            ]
        ).mean()


def _distance(own: Tensor, other: Tensor, kept: Masks) -> Tensor:
    """Return the squared error relative to the variance of the teacher's values, of which only some are looked at."""
    with torch.no_grad():
        for axis, mask in enumerate(kept):
            if not mask.all():
                other = other.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(other.device))
        other = other.float()
        spread = other.var(correction=0).clamp_min(_LEAST)
    return (own.float() - other).square().mean() / spread
