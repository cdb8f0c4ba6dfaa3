# SPDX-License-Identifier: Apache-2.0
"""Train the example network: a small residual network on scikit-learn's handwritten digits, exported to ONNX.

Run from the root of the repository, about ten seconds on a CPU::

    python tools/train_digits.py

Writes ``examples/digits.onnx`` (input ``image``, float32 (batch, 1, 8, 8) in [0, 1]; output ``logits``, (batch, 10);
BatchNormalization nodes kept) and ``examples/digits_test.npz`` (held-out images under the input's name, ``labels``).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

SEED = 0
EPOCHS = 60
BATCH = 64
STEM = 16
STAGES = ((16, 2, 1), (32, 2, 2), (64, 1, 2))
"""Width, number of blocks and stride of each residual stage: balanced FLOPs, and a file below 500 kB."""


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut, projected where width or resolution change."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width:
            norm = nn.BatchNorm2d(width)
            # Both biases get the same gradient: started equal they would stay equal, and the exporter merge them.
            nn.init.normal_(norm.bias, std=0.01)
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width_in, height, width) to (batch, width, height / stride, width / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """Stem, three residual stages, global average pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, STEM, 3, 1, 1, bias=False), nn.BatchNorm2d(STEM), nn.ReLU())
        blocks, width_in = [], STEM
        for width, count, stride in STAGES:
            for index in range(count):
                blocks.append(Block(width_in, width, stride if index == 0 else 1))
                width_in = width
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(width_in, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (batch, 1, 8, 8) to logits (batch, 10)."""
        features = functional.adaptive_avg_pool2d(self.stages(self.stem(image)), 1)
        logits: Tensor = self.head(torch.flatten(features, 1))
        return logits


@dataclass(frozen=True, eq=False)
class Digits:
    """The data set: images float32 (n, 1, 8, 8) in [0, 1], labels int64 (n,); a third is held out."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load() -> Digits:
    """Split scikit-learn's 1797 digits, the same way every time."""
    digits = load_digits()
    images = (digits.data.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    parts = train_test_split(
        images, digits.target.astype(np.int64), test_size=1 / 3, random_state=SEED, stratify=digits.target
    )
    train_images, test_images, train_labels, test_labels = (torch.from_numpy(part) for part in parts)
    return Digits(train_images, train_labels, test_images, test_labels)


def shifted(images: Tensor) -> Tensor:
    """Move the whole batch by up to one pixel in each direction: the only augmentation that 8 x 8 pixels bear."""
    down, right = (int(amount) for amount in torch.randint(0, 3, (2,)))
    return functional.pad(images, (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]


def train(model: nn.Module, digits: Digits, epochs: int) -> None:
    """Train in place: SGD with momentum on a one-cycle schedule, label smoothing."""
    steps = len(digits.train_images) // BATCH
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=epochs * steps)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(digits.train_images))[: steps * BATCH].reshape(steps, BATCH):
            logits = model(shifted(digits.train_images[chosen]))
            loss = functional.cross_entropy(logits, digits.train_labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, digits: Digits) -> float:
    """Return the fraction of held-out images that are classified correctly."""
    model.eval()
    return float((model(digits.test_images).argmax(1) == digits.test_labels).double().mean())


def export(model: nn.Module) -> onnx.ModelProto:
    """Export with BatchNormalization nodes kept: the exporter folds them unless the training mode is preserved."""
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "digits.onnx"
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, 8, 8),),
            file,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
        proto = onnx.load(file)
    proto.graph.name = "digits"
    onnx.checker.check_model(proto, full_check=True)
    return proto


def main() -> None:
    """Train, report the accuracy and write both files."""
    parser = argparse.ArgumentParser(description="Train examples/digits.onnx and write its held-out images.")
    parser.add_argument("--out", type=Path, default=Path("examples"), help="folder to write to (default: examples)")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    digits, model, start = load(), DigitsNet(), time.perf_counter()
    train(model, digits, options.epochs)
    print(f"trained {options.epochs} epochs in {time.perf_counter() - start:.0f} s")
    print(f"accuracy on {len(digits.test_labels)} held-out images: {accuracy(model, digits):.2%}")

    proto = export(model)
    kept = sum(node.op_type == "BatchNormalization" for node in proto.graph.node)
    expected = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if kept != expected:
        raise SystemExit(f"the exporter kept {kept} of {expected} BatchNormalization nodes")
    options.out.mkdir(parents=True, exist_ok=True)
    model_file, data_file = options.out / "digits.onnx", options.out / "digits_test.npz"
    onnx.save(proto, model_file)
    np.savez_compressed(data_file, image=digits.test_images.numpy(), labels=digits.test_labels.numpy())
    print(f"{model_file}: {model_file.stat().st_size} bytes, {kept} BatchNormalization nodes")
    print(f"{data_file}: {data_file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
