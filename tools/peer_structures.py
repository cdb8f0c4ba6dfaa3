# SPDX-License-Identifier: Apache-2.0
"""Write small networks with the structures that Torch-Pruning and TinyNeuralNetwork test, as ONNX files.

::

    python tools/peer_structures.py ~/structures
    python tools/zoo.py ~/structures --budgets 0.5 --markdown docs/coverage.md --title 'What other pruners test'

Every network is written anew here and named after what it shows; weights are random and drawn so that every channel
matters. Recurrent layers with projections, which ONNX's operator does not have, are cells in a `Scan`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import onnx
import torch
from peer_structures_layers import layer_networks
from peer_structures_models import joined_networks
from peer_structures_projected import projected
from torch import nn

OPSET = 17


def stir(network: nn.Module) -> nn.Module:
    """Draw weights that are zero or next to nothing at the start: layer scales, and heads that begin at zero."""
    generator = torch.Generator().manual_seed(0)
    for tensor in network.parameters():
        if tensor.numel() > 1 and float(tensor.detach().abs().max()) < 1e-3:
            nn.init.normal_(tensor, std=0.1, generator=generator)
    return network


def write(folder: Path) -> int:
    """Write all networks; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, make, shapes in (*joined_networks(), *layer_networks()):
        torch.manual_seed(0)
        inputs = tuple(torch.randn(shape) for shape in shapes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of shapes that it takes as constants, as is wanted
            file = folder / f"{name}.onnx"
            torch.onnx.export(stir(make()).eval(), inputs, file, opset_version=OPSET, dynamo=False)
        count += 1
    for name, proto in projected():
        onnx.save(proto, folder / f"{name}.onnx")
        count += 1
    return count


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the structures that other pruners test as ONNX files.")
    parser.add_argument("folder", type=Path)
    print(f"{write(parser.parse_args().folder)} networks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
