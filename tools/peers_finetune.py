#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prune a CIFAR-10 ResNet with Torch-Pruning to half of its multiply-adds, and finetune it as its examples do.

    pip install '.[peers,train]'
    python tools/peers_finetune.py resnet20_cifar10.onnx cifar10.npz --images 20000 --epochs 2

What `finetune_cifar.py` is compared with: the same weights, read from the ONNX file into a torch module (the option A
networks of He et al., CVPR 2016, arXiv:1512.03385, section 4.2), the same images and epochs, flips and crops.
Torch-Pruning removes inner channels of blocks by group L1 magnitude, a four-hundredth at a time, until half of the
multiply-adds is left; the streams stay, for it does not follow their padded shortcuts. Statistics of BatchNormalization
are estimated anew on the first 1,024 training images. Finetuning is plain: cross-entropy on labels, SGD, momentum 0.9,
batch 128, a half cosine from each of the rates; what is printed is the best of them by 1,024 held-out training images.
One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch_pruning as tp
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HELD_OUT = CALIBRATION = 1024
BATCH, STEPS = 128, 400
CROP = 4


class Block(nn.Module):
    """Two convolutions beside a shortcut, which pads with zeros where the stream gets wider."""

    def __init__(self, read: int, made: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(read, made, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(made)
        self.conv2 = nn.Conv2d(made, made, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(made)
        self.stride, self.padding = stride, (made - read) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream behind the block."""
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(inner + x)


class Network(nn.Module):
    """A ResNet of three stages of so many blocks."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(Block(made if at else read, made, 1 if at else stride) for at in range(blocks)))
            for read, made, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def main() -> None:
    """Print one line per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="x_train, y_train, x_test, y_test; images uint8, NHWC")
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03, 0.1])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    with np.load(options.data) as data:
        images, labels = pixels(data["x_train"][: options.images]), torch.from_numpy(data["y_train"].astype(np.int64))
        test = pixels(data["x_test"]), torch.from_numpy(data["y_test"].astype(np.int64))
    held_out = images[-HELD_OUT:], labels[: options.images][-HELD_OUT:]
    learned = images[:-HELD_OUT], labels[: options.images][:-HELD_OUT]
    network = read(options.model)
    show("the original", network, test)
    share = prune(network, test[0][:1])
    show("pruned", network, test, multiply_adds=share)
    restate(network, images[:CALIBRATION])
    show("statistics estimated anew", network, test)
    tuned = [(finetune(network, learned, options.epochs, rate, options.seed), rate) for rate in options.rates]
    best, rate = max(tuned, key=lambda pair: accuracy(pair[0], held_out))
    show("finetuned", best, test, rate=rate, epochs=options.epochs, images=len(learned[0]))


def pixels(images: np.ndarray) -> Tensor:
    """Return 8-bit images, shape (n, 32, 32, 3), as the network takes them."""
    scaled = (torch.from_numpy(images).float() / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    return scaled.permute(0, 3, 1, 2).contiguous()


def read(path: Path) -> nn.Module:
    """Return the network of a file, whose weights have the names of the module's."""
    weights = {
        one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in onnx.load(path).graph.initializer
    }
    blocks = 1 + max(int(found[1]) for name in weights if (found := re.match(r"layer1\.(\d+)\.", name)))
    network = Network(blocks)
    state = network.state_dict()
    network.load_state_dict({name: weights.get(name, value) for name, value in state.items()})
    missing = [name for name in state if name not in weights and not name.endswith("num_batches_tracked")]
    if missing:
        raise SystemExit(f"{path} has no {', '.join(missing)}")
    return network.eval()


def prune(network: nn.Module, image: Tensor) -> float:
    """Remove inner channels until half of the multiply-adds is left; return which share is."""
    whole, _ = tp.utils.count_ops_and_params(network, image)
    streams = [module for name, module in network.named_modules() if name == "conv1" or name.endswith("conv2")]
    pruner = tp.pruner.BasePruner(
        network,
        image,
        importance=tp.importance.GroupMagnitudeImportance(p=1),
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=[*streams, network.linear],
    )
    share = 1.0
    for _ in range(STEPS - 1):
        pruner.step()
        share = tp.utils.count_ops_and_params(network, image)[0] / whole
        if share <= 0.5:
            break
    return round(share, 4)


def restate(network: nn.Module, images: Tensor) -> None:
    """Estimate the statistics of BatchNormalization anew."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a mean over all batches
    network.train()
    with torch.no_grad():
        for batch in images.split(BATCH):
            network(batch)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    network.eval()


def finetune(start: nn.Module, data: tuple[Tensor, Tensor], epochs: int, rate: float, seed: int) -> nn.Module:
    """Return the network after plain training on labels."""
    network, random = copy.deepcopy(start).train(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    images, labels = data
    steps = epochs * -(-len(images) // BATCH)
    done = 0
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=random).split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * done / steps)) / 2
            optimizer.zero_grad()
            functional.cross_entropy(network(changed(images[index], random)), labels[index]).backward()
            optimizer.step()
            done += 1
    return network.eval()


def changed(images: Tensor, random: torch.Generator) -> Tensor:
    """Return images flipped and cropped at random."""
    flips = torch.rand(len(images), generator=random) < 0.5
    images = torch.where(flips[:, None, None, None], images.flip(3), images)
    padded = functional.pad(images, (CROP, CROP, CROP, CROP))
    offsets = torch.randint(0, 2 * CROP + 1, (len(images), 2), generator=random).tolist()
    height, width = images.shape[2:]
    return torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in zip(padded, offsets, strict=True)])


def accuracy(network: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Return top-1 accuracy."""
    with torch.no_grad():
        right = [(network(x).argmax(1) == y).sum() for x, y in zip(data[0].split(500), data[1].split(500), strict=True)]
    return float(torch.stack(right).sum()) / len(data[0])


def show(what: str, network: nn.Module, test: tuple[Tensor, Tensor], **facts: Any) -> None:
    """Print accuracy and processor time so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = round(used.ru_utime + used.ru_stime)
    print(json.dumps({"network": what, "top1": accuracy(network, test), **facts, "cpu_s": seconds}), flush=True)


if __name__ == "__main__":
    main()
