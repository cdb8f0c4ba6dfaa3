# SPDX-License-Identifier: Apache-2.0
"""How a model is finetuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graphprune.checks import check_fields
from graphprune.choices import Device, Precision
from graphprune.training.losses import Kind, LossFunction
from graphprune.training.trainer import Optimisation

__all__ = ["FinetuneOptions"]


@dataclass(frozen=True)
class FinetuneOptions:
    """How a model is finetuned.

    Parameters
    ----------
    epochs : float
        Passes over the data.
    batch : int
        Samples of a step, over all processes.
    rate : float, optional
        The highest learning rate; by default the best of a few that are tried.
    optimisation : Optimisation
    label_weight : float, optional
        Share of the labels in the loss: by default 0.1 with a teacher, all of it without.
    temperature, smoothing : float
        Of distillation, and of labels.
    kinds : mapping of str to {"kl", "mse", "cosine", "none"}
        How outputs are compared, where the default does not fit.
    loss : callable, optional
        Your own loss (`losses.LossFunction`).
    augment : str
        ``auto``, ``none``, or as in `augment.parse_augmentation`.
    held_out : int, optional
        Samples that judge and are not trained on: by default a tenth, 1,024 at most.
    unfold : bool, optional
        Put BatchNormalization back where it was folded: by default, where the model has none at all.
    device : str
        ``auto`` or ``cpu``.
    precision : {"no", "fp16", "bf16"}
    checkpoint : Path, optional
        Where to save the state of the run; ``resume`` goes on from there.
    checkpoint_every : int
        Steps between two checkpoints.
    seed : int
    regularize : {"", "bn-l1", "group-norm", "growing"}
        What draws channels towards zero meanwhile; see `pruning.regularize`.
    strength : float, optional
        How strongly; by default that of the regulariser.
    """

    epochs: float = 2.0
    batch: int = 128
    rate: float | None = None
    optimisation: Optimisation = field(default_factory=Optimisation)
    label_weight: float | None = None
    temperature: float = 4.0
    smoothing: float = 0.0
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    loss: LossFunction | None = None
    augment: str = "auto"
    held_out: int | None = None
    unfold: bool | None = None
    device: Device = "auto"
    precision: Precision = "no"
    checkpoint: Path | None = None
    checkpoint_every: int = 200
    resume: bool = False
    seed: int = 0
    regularize: str = ""
    strength: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, device=Device, precision=Precision)
