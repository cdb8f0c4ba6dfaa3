# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's graphics processors, through onnxruntime's CUDA provider alone."""

from __future__ import annotations

import time
from pathlib import Path

from graphprune.export.runtime import RUNTIMES, ModelSignature, NetworkRun
from graphprune.export.runtimes.onnxruntime import OnnxRuntime, open_with

__all__ = ["Cuda"]


@RUNTIMES.register("cuda")
class Cuda(OnnxRuntime):
    """The CUDA provider."""

    clock = time.perf_counter

    def missing(self) -> str:
        """Return what speaks against CUDA on this machine."""
        from graphprune.data.providers import current, on

        with on("auto"):
            device = current()
        return "" if device.name == "cuda" else device.why

    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Open a session."""
        return open_with(path, signature, ["CUDAExecutionProvider"], alone=True)
