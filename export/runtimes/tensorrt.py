# SPDX-License-Identifier: Apache-2.0
"""NVIDIA TensorRT, through onnxruntime's provider, which uses TensorRT's own reader of ONNX."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

from graphprune.export.runtime import RUNTIMES, ModelSignature, NetworkRun
from graphprune.export.runtimes.onnxruntime import OnnxRuntime, open_with

__all__ = ["TensorRt"]

_PROVIDER = "TensorrtExecutionProvider"


@RUNTIMES.register("tensorrt")
class TensorRt(OnnxRuntime):
    """The TensorRT provider."""

    clock = time.perf_counter

    def missing(self) -> str:
        """Return what speaks against TensorRT on this machine."""
        from ctypes.util import find_library

        import onnxruntime

        if _PROVIDER not in onnxruntime.get_available_providers():
            return "onnxruntime-gpu with its TensorRT provider"
        return "" if find_library("nvinfer") or find_spec("tensorrt_libs") else "the libraries of TensorRT"

    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Open a session; a network of which it does not take everything is refused."""
        return open_with(path, signature, [_PROVIDER], alone=True)
