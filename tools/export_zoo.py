# SPDX-License-Identifier: Apache-2.0
"""Export a zoo of torchvision networks with random but healthy weights, twice each, for tests and benchmarks.

::

    python tools/export_zoo.py ~/zoo                  # everything, about 4 GB
    python tools/export_zoo.py ~/zoo resnet18 vgg16_bn

Writes ``NAME.dynamo.onnx`` (torch's default exporter, which folds BatchNormalization into convolutions) and
``NAME.legacy.onnx`` (the TorchScript exporter with BatchNormalization kept). The batch dimension is dynamic, the input
is called ``input`` and the output ``output``. Files that exist are left alone. Nothing is downloaded: weights are
seeded random numbers, and BatchNormalization statistics are taken from one pass over noise, so that no channel is dead
and nothing overflows in deep networks.
"""

from __future__ import annotations

import argparse
import gc
import logging
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torchvision import models

NAMES = (
    "alexnet",
    "vgg16_bn",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "densenet201",
    "googlenet",
    "inception_v3",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet1_0",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "regnet_y_400mf",
    "fcn_resnet50",
    "deeplabv3_mobilenet_v3_large",
)
SIZES = {"inception_v3": 299}
"""Side of the square input image where it is not 224."""
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "fcn_resnet50": {"weights_backbone": None, "aux_loss": False},
    "deeplabv3_mobilenet_v3_large": {"weights_backbone": None, "aux_loss": False},
}
"""Arguments of the torchvision constructors beside ``weights=None``."""

OPSET = 18
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

log = logging.getLogger("export_zoo")


class Segmentation(nn.Module):
    """A segmentation network whose output is the score map instead of a dictionary of maps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, 3, height, width) to scores (batch, classes, height, width)."""
        scores: Tensor = self.model(x)["out"]
        return scores


def build(name: str, image: Tensor) -> nn.Module:
    """Return a network in evaluation mode, its weights a function of its name alone."""
    torch.manual_seed(zlib.crc32(name.encode()))
    model: nn.Module = models.get_model(name, weights=None, **OPTIONS.get(name, {}))
    if isinstance(model, models.segmentation.fcn.FCN | models.segmentation.deeplabv3.DeepLabV3):
        model = Segmentation(model)
    for norm in norms(model):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(torch.randn(4, *image.shape[1:]))
    return model.eval()


def norms(model: nn.Module) -> list[Any]:
    """Return the BatchNormalization modules of a network."""
    return [module for module in model.modules() if isinstance(module, NORMS)]


def export_dynamo(model: nn.Module, image: Tensor, file: Path) -> None:
    """Export as torch does by default, weights inside the file."""
    torch.onnx.export(
        model,
        (image,),
        file,
        dynamo=True,
        opset_version=OPSET,
        external_data=False,
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )


def export_legacy(model: nn.Module, image: Tensor, file: Path) -> None:
    """Export through TorchScript; with the training mode preserved, BatchNormalization is not folded."""
    torch.onnx.export(
        model,
        (image,),
        file,
        dynamo=False,
        opset_version=min(OPSET, 17),
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )
    kept = sum(node.op_type == "BatchNormalization" for node in onnx.load(file).graph.node)
    if kept != len(norms(model)):
        raise RuntimeError(f"{kept} of {len(norms(model))} BatchNormalization nodes kept")


EXPORTERS: dict[str, Callable[[nn.Module, Tensor, Path], None]] = {"dynamo": export_dynamo, "legacy": export_legacy}


def compare(model: nn.Module, image: Tensor, file: Path) -> float:
    """Return the largest difference between file and network, relative to the largest output; at another batch size."""
    single = image[:1]
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"input": single.numpy()})
    with torch.no_grad():
        expected = model(single).numpy()
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not error < 1e-3 or expected.std() == 0:
        raise RuntimeError(
            f"the exported file differs from the network by {error:.1e}, outputs spread {expected.std():.1e}"
        )
    return error


def export(name: str, folder: Path) -> list[str]:
    """Write the missing files of one network; return those that failed."""
    size = SIZES.get(name, 224)
    files = {how: folder / f"{name}.{how}.onnx" for how in EXPORTERS}
    missing = {how: file for how, file in files.items() if not file.exists()}
    if not missing:
        return []
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    model = build(name, image)
    failed = []
    for how, file in missing.items():
        start, part = time.perf_counter(), file.with_suffix(".part")
        try:
            EXPORTERS[how](model, image, part)
            error = compare(model, image, part)
        except Exception:  # exporters raise anything; the other files are still wanted
            log.exception("%s failed", file.name)
            part.unlink(missing_ok=True)
            failed.append(file.name)
            continue
        part.replace(file)
        seconds, megabytes = time.perf_counter() - start, file.stat().st_size / 1e6
        log.info("%-45s %7.1f MB %6.0f s   error %.0e", file.name, megabytes, seconds, error)
    return failed


def main() -> None:
    """Export the networks asked for."""
    parser = argparse.ArgumentParser(description="Export torchvision networks with random weights to ONNX.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # the TorchScript exporter is deprecated, and wanted here
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for chatty in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.names:
        failed += export(name, options.folder)
        gc.collect()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
