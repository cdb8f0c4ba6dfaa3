# SPDX-License-Identifier: Apache-2.0
"""The networks of the comparison with other pruners: torchvision's families with random weights, on small inputs.

Nothing is downloaded. Inputs are as small as each network takes, since shares of the FLOPs are compared and not
times; networks whose weights depend on the size of the input are built for the small one.
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from export_zoo import norms
from torch import Tensor, nn
from torchvision import models
from torchvision.models.video import mvit

FAMILIES: dict[str, Any] = {
    "classification": models,
    "segmentation": models.segmentation,
    "video": models.video,
}
SIDE = 64
SIDES = {
    "alexnet": 224,
    "inception_v3": 75,
    "maxvit_t": 224,
    "vit_h_14": 56,
    "s3d": 224,
    "mvit_v1_b": 224,
    "mvit_v2_s": 224,
}
"""Side of the image where it is not 64: what the network takes at least, or what its exporter can express."""
FRAMES = {"s3d": 16}
"""Frames of a video where they are not 8."""
OPSET = 17
OTHER_EXPORTER = ("mvit_v1_b", "mvit_v2_s", "vit_h_14", "regnet_y_128gf")
"""TorchScript turns one of their functions into loops over sequences, or cannot write so many weights."""


class First(nn.Module):
    """A network whose output is its main output instead of a dictionary."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Map images to scores."""
        scores: Tensor = self.model(x)["out"]
        return scores


def names(family: str) -> list[str]:
    """Return the networks of a family, the smallest first; those with quantised weights have families of their own."""
    found: list[str] = models.list_models(module=FAMILIES[family])
    return sorted(found, key=lambda name: (parameters(name), name))


def parameters(name: str) -> int:
    """Return the number of parameters, which torchvision states with its pretrained weights."""
    (*_, weights) = models.get_model_weights(name)
    return int(weights.meta["num_params"])


def image(name: str, batch: int = 1) -> Tensor:
    """Return a random input."""
    side = 224 if name.startswith("vgg") else SIDES.get(name, SIDE)
    video = name in models.list_models(module=models.video)
    frames = (FRAMES.get(name, 8),) if video else ()
    return torch.randn(batch, 3, *frames, side, side, generator=torch.Generator().manual_seed(0))


def _options(name: str) -> dict[str, Any]:
    """Return arguments of the constructor beside ``weights=None``."""
    shape = image(name).shape
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": shape[-1]}
    if name in models.list_models(module=models.segmentation):
        return {"weights_backbone": None} | ({} if name.startswith("lraspp") else {"aux_loss": False})
    return {}


def _small_mvit(**options: Any) -> nn.Module:
    """Build an MViT for the small video; its builders allow no other size than that of the pretrained weights."""
    shape = image("mvit_v1_b").shape
    model: nn.Module = _MVIT(**options | {"spatial_size": tuple(shape[-2:]), "temporal_size": shape[-3]})
    return model


_MVIT = mvit._mvit


def build(name: str) -> nn.Module:
    """Return a network in evaluation mode; weights and BatchNormalization statistics are functions of its name."""
    torch.manual_seed(zlib.crc32(name.encode()))
    torch.backends.mha.set_fastpath_enabled(False)  # a fused operator that no exporter and no tracer knows
    with mock.patch.object(mvit, "_mvit", _small_mvit):
        model: nn.Module = models.get_model(name, weights=None, **_options(name))
    if name in models.list_models(module=models.segmentation):
        model = First(model)
    for key, parameter in model.named_parameters():  # what starts at nothing would hide whatever happens before it
        if key.endswith("layer_scale"):
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    found = norms(model)
    for norm in found:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
    if found:
        model.train()
        with torch.no_grad():
            model(image(name, batch=2))
    return model.eval()


def export(name: str, file: Path) -> None:
    """Write a network as ONNX through TorchScript, with BatchNormalization kept and a fixed batch of one."""
    warnings.simplefilter("ignore")
    model = build(name)
    with torch.no_grad():
        if name in OTHER_EXPORTER:
            torch.onnx.export(model, (image(name),), file, dynamo=True, opset_version=18, verbose=False)
            return
        torch.onnx.export(
            model,
            (image(name),),
            file,
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["input"],
            output_names=["output"],
        )
