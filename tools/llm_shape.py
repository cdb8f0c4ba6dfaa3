# SPDX-License-Identifier: Apache-2.0
"""Prune a decoder of the size of a large language model, and measure time and memory of every step.

::

    python tools/llm_shape.py                              # the shape of Llama 2 7B, made in a temporary folder
    python tools/llm_shape.py --shape qwen2-7b --flops 0.8
    python tools/llm_shape.py --filled --verify            # with random weights on the disk, and proven
    python tools/llm_shape.py --keep FOLDER                # only make the model

Weights are zeros in a sparse file, which takes no disk space; what is written is as large as it is. The work is done,
and measured, by ``tools/bench_large.py``. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench_large import report
from llm_graphs import SHAPES, Decoder, build


def main() -> int:
    """Make the model, prune it in a child process, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-2-7b", help="whose sizes it has")
    parser.add_argument("--layers", type=int, help="fewer or more layers than that")
    parser.add_argument("--filled", action="store_true", help="random weights instead of zeros")
    parser.add_argument("--flops", type=float, default=0.7, help="share of the FLOPs to keep")
    parser.add_argument("--limit", type=float, default=2.0, help="allowed peak of resident memory (10^9 bytes)")
    parser.add_argument("--verify", action="store_true", help="also run both models in onnxruntime and compare")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--keep", type=Path, help="only write the model, into this folder")
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    shape = shape if options.layers is None else replace(shape, layers=options.layers)
    if options.keep:
        return make(shape, options.keep, filled=options.filled)
    with tempfile.TemporaryDirectory(prefix="graphprune-llm-", dir=options.folder) as folder:
        place = Path(folder)
        make(shape, place, filled=options.filled)
        work = str(Path(__file__).with_name("bench_large.py"))
        command = [sys.executable, work, "--child", str(place), "--flops", str(options.flops)]
        subprocess.run([*command, *(["--verify"] if options.verify else [])], check=True)
        return report(json.loads((place / "steps.json").read_text("utf-8")), options.limit)


def make(shape: Decoder, folder: Path, *, filled: bool) -> int:
    """Write the model and say how large it is."""
    folder.mkdir(exist_ok=True)
    count = build(shape, folder / "large.onnx", seed=0 if filled else None)
    print(f"{count / 1e9:.2f} billion parameters in {folder / 'large.onnx'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
