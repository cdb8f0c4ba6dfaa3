# SPDX-License-Identifier: Apache-2.0
"""Refining: made samples are changed by gradient until normalisations meet what they remember of the training data.

A `BatchNormalization` that keeps its statistics says of every channel what mean and deviation it had over the training
data. Both are differentiable in the pixels, at every depth. So samples that were chosen of many are optimised, batch by
batch, until the whole network meets in them what it met in training; total variation keeps images smooth, and no pixel
leaves the range that it had.

Source: Cai et al., ZeroQ: A Novel Zero Shot Quantization Framework, CVPR 2020, arXiv:2001.00281, section 3.1, and Yin
et al., Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion, CVPR 2020, arXiv:1912.08795, section 3.2,
which start from noise. Starting from images that were chosen of natural ones is ours.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphprune.array_types import Array
from graphprune.data.arrays import from_arrays
from graphprune.data.signature import batch_size, input_specs
from graphprune.data.statistics import mean_mismatch, remembered, sample_statistics
from graphprune.data.synthesis.make_samples import MadeSamples, Refinement
from graphprune.errors import InternalError, UsageError
from graphprune.model.graph import Graph
from graphprune.model.normalize import inline_functions
from graphprune.training.augment import channels_last
from graphprune.training.batch_norm import BatchNorm
from graphprune.training.bridge import Trainable, to_torch
from graphprune.training.check_bridge import check_converted
from graphprune.training.loader import Samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from graphprune.choices import Device
    from graphprune.data.source import Source
    from graphprune.data.statistics import RememberedNorm, Statistics
    from graphprune.model.load import Model

__all__ = ["STEP_PASSES", "RefineOptions", "refine_samples"]

STEP_PASSES = 3
"""What a step costs, in forward passes: one forward, and one backward that is worth two."""

_NUMBERS = 3 * 32 * 224 * 224
_FEWEST, _MOST = 32, 128
"""Samples of a batch: enough for statistics, and no more than memory holds."""
_LEAST = 1e-12
_IMAGE_AXES = 4


@dataclass(frozen=True)
class RefineOptions:
    """How samples are refined.

    Parameters
    ----------
    passes : int
        Work: forward passes of the network per sample. A step of the optimiser is worth three of them.
    rate : float
        Of Adam, in deviations of the samples; it falls to 0 along a half cosine.
    smoothness : float
        Weight of the total variation of images, in deviations per pixel.
    device : {"auto", "cpu"}
    """

    passes: int = 60
    rate: float = 0.05
    smoothness: float = 0.01
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.passes < STEP_PASSES:
            raise UsageError(f"{self.passes} forward passes are less than one step, which is worth {STEP_PASSES}")

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return self.passes // STEP_PASSES


def refine_samples(
    model: Model,
    made: MadeSamples,
    options: RefineOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MadeSamples:
    """Change samples by gradient until they are to a network what its training data was, deterministically.

    Parameters
    ----------
    model : Model
        It is not changed.
    made : MadeSamples
        Where it starts. Inputs that are no floating-point numbers stay as they are.
    options : RefineOptions, optional
    progress : callable, optional
        Told how many steps of all batches are done.

    Returns
    -------
    MadeSamples
        Those that were given where the network remembers no statistics, no input is floating-point, or the mismatch
        did not fall; what they go by says so then.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be converted to torch.

    Complexity: ``options.passes`` forward passes of the network over the samples, one batch in memory.
    """
    options = options or RefineOptions()
    specs, graph = input_specs(model), Graph(inline_functions(model.proto))
    norms = remembered(model, graph)
    moving = [spec.name for spec in specs if spec.dtype.kind == "f" and spec.samples == 0]
    if not norms or not moving:
        return replace(made, knowledge=f"{made.knowledge}; not refined, for want of statistics that pixels move")
    whole = made.source.read(np.arange(len(made.source), dtype=np.int64))
    net, size = _converted(model, made.source, sum(whole.feeds[name][:1].size for name in moving))
    device = torch.device("cuda" if options.device == "auto" and torch.cuda.is_available() else "cpu")
    net.module.to(device)
    batches = np.array_split(np.arange(len(whole)), -(-len(whole) // size))
    arrays = {name: whole.feeds[name].copy() if name in moving else whole.feeds[name] for name in whole.feeds}
    with _Refiner(net, norms, options, device) as refiner:
        frames = {name: _Frame.of(arrays[name], device) for name in moving}
        for number, index in enumerate(batches):
            samples = Samples.of(made.source.read(index)).to(device)
            refined = refiner.refined(samples, frames, _counted(progress, number, len(batches), options.steps))
            for name, values in refined.items():
                arrays[name][index] = values
    source = from_arrays(made.source.name, specs, arrays)
    before, after = (mean_mismatch(norms, _met(model, graph, norms, one)) for one in (made.source, source))
    if not after < before:
        return replace(made, knowledge=f"{made.knowledge}; refining did not bring them nearer")
    return replace(made, source=source, refinement=Refinement(options.steps * STEP_PASSES, (before, after)))


def _converted(model: Model, source: Source, numbers: int) -> tuple[Trainable, int]:
    """Return a network in torch that was held against its file, and how many samples it takes at once.

    A file that says how many it takes may still take more in torch; statistics want more than a few.
    """
    net = to_torch(model)
    net.module.requires_grad_(False)
    fixed = batch_size(input_specs(model))
    check_converted(net, model, Samples.of(source.read(np.arange(fixed or min(len(source), _FEWEST)))))
    size = min(len(source), int(np.clip(_NUMBERS // max(1, numbers), _FEWEST, _MOST)))
    if fixed is None:
        return net, size
    try:
        with torch.no_grad():
            net.run(Samples.of(source.read(np.arange(size))).feeds)
    except RuntimeError:  # a size inside of the graph, such as that of a reshape, goes by the number of samples
        return net, fixed
    return net, size


def _met(model: Model, graph: Graph, norms: Sequence[RememberedNorm], source: Source) -> list[Statistics]:
    """Return the statistics that normalisations meet in samples."""
    batches = (dict(batch.feeds) for batch in source.batches(batch_size(input_specs(model)) or _FEWEST))
    return [one.over(slice(None)) for one in sample_statistics(model, graph, norms, batches)]


def _counted(
    progress: Callable[[int, int], None] | None, number: int, batches: int, steps: int
) -> Callable[[int], None]:
    """Return what is told how many steps of a batch are done."""
    return lambda done: None if progress is None else progress(number * steps + done, batches * steps)


@dataclass(frozen=True, eq=False)
class _Frame:
    """The range of an input: what is optimised is ``(values - centre) / scale``, between two bounds.

    All tensors hold one value per channel of images, and a single one of other inputs, and broadcast over a batch.
    """

    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, values: Array, device: torch.device) -> _Frame:
        """Return the range that the samples of an input have."""
        channel = values.ndim - 1 if channels_last(values.shape) else 1
        kept = {channel} if values.ndim == _IMAGE_AXES else set()
        axes = tuple(axis for axis in range(values.ndim) if axis not in kept)
        moments = (
            values.mean(axis=axes, keepdims=True, dtype=np.float64),
            values.std(axis=axes, keepdims=True, dtype=np.float64) + _LEAST,
            values.min(axis=axes, keepdims=True).astype(np.float64),
            values.max(axis=axes, keepdims=True).astype(np.float64),
        )
        centre, scale, low, high = (torch.from_numpy(part.astype(np.float32)).to(device) for part in moments)
        return cls(centre, scale, (low - centre) / scale, (high - centre) / scale)


class _Refiner:
    """A network that tells how far what its normalisations meet is from what they remember."""

    def __init__(
        self, net: Trainable, norms: Sequence[RememberedNorm], options: RefineOptions, device: torch.device
    ) -> None:
        self._net = net
        self._options = options
        self._device = device
        self._distances: list[Tensor] = []
        self._hooks: list[Any] = []
        self._norms = [(_normaliser(net, norm), norm.kept) for norm in norms]

    def __enter__(self) -> _Refiner:
        for module, kept in self._norms:
            self._hooks.append(module.register_forward_pre_hook(self._watcher(kept)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _watcher(self, kept: Statistics) -> Callable[[object, tuple[Tensor, ...]], None]:
        mean, deviation, scale = (
            torch.from_numpy(value.astype(np.float32)).to(self._device)
            for value in (kept.mean, np.sqrt(kept.variance), kept.scale)
        )

        def watch(_: object, given: tuple[Tensor, ...]) -> None:
            rows = given[0].float().transpose(0, 1).flatten(1)
            spread = (rows.var(1, correction=0) + _LEAST).sqrt()
            self._distances.append((((rows.mean(1) - mean).square() + (spread - deviation).square()) / scale).mean())

        return watch

    def refined(self, samples: Samples, frames: Mapping[str, _Frame], told: Callable[[int], None]) -> dict[str, Array]:
        """Return other values for the inputs that have a frame."""
        free = {
            name: ((samples.feeds[name].float() - frame.centre) / frame.scale).requires_grad_()
            for name, frame in frames.items()
        }
        optimizer = torch.optim.Adam(list(free.values()), lr=self._options.rate)
        for step in range(self._options.steps):
            told(step)
            for group in optimizer.param_groups:  # a half cosine: large steps would only jump about in the end
                group["lr"] = self._options.rate * (1 + math.cos(math.pi * step / self._options.steps)) / 2
            optimizer.zero_grad()
            self._loss(samples, free, frames).backward()  # type: ignore[no-untyped-call]  # torch declares no types here
            optimizer.step()
            with torch.no_grad():
                for name, value in free.items():
                    value.clamp_(frames[name].low, frames[name].high)
        feeds = self._feeds(samples, free, frames)
        return {name: feeds[name].detach().cpu().numpy() for name in frames}

    def _loss(self, samples: Samples, free: Mapping[str, Tensor], frames: Mapping[str, _Frame]) -> Tensor:
        self._distances.clear()
        with nullcontext() if self._device.type == "cpu" else self._device:
            self._net.run(self._feeds(samples, free, frames))
        rough = [_variation(value) for value in free.values() if value.dim() == _IMAGE_AXES]
        distance = torch.stack(self._distances).mean()
        return distance + self._options.smoothness * torch.stack(rough).mean() if rough else distance

    @staticmethod
    def _feeds(samples: Samples, free: Mapping[str, Tensor], frames: Mapping[str, _Frame]) -> dict[str, Tensor]:
        moved = {
            name: (frame.centre + frame.scale * free[name]).to(samples.feeds[name].dtype)
            for name, frame in frames.items()
        }
        return {**samples.feeds, **moved}


def _normaliser(net: Trainable, norm: RememberedNorm) -> BatchNorm:
    """Return the module that a normalisation of the file became."""
    for node in net.made[norm.node.index]:
        if node.op == "call_module":
            module = net.module.get_submodule(str(node.target))
            if isinstance(module, BatchNorm):
                return module
    raise InternalError(f"{norm.node.label} became no normalisation in torch")


def _variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbours, down and across."""
    first, second = (1, 2) if channels_last(images.shape) else (2, 3)
    return images.diff(dim=first).abs().mean() + images.diff(dim=second).abs().mean()
