# SPDX-License-Identifier: Apache-2.0
"""OpenCV's module dnn on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphprune.export.runtime import RUNTIMES, ModelSignature, NetworkRun, Runtime

__all__ = ["OpenCv"]


@RUNTIMES.register("opencv")
class OpenCv(Runtime):
    """OpenCV, which reads ONNX itself."""

    modules = ("cv2",)
    refused = frozenset({"int8"})

    def version(self) -> str:
        """Return the version of whichever of its packages is installed; empty where none is."""
        if self.missing():
            return ""
        import cv2

        return str(cv2.__version__)

    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Read the file."""
        import cv2
        import numpy as np

        cv2.setNumThreads(1)
        network = cv2.dnn.readNetFromONNX(str(path))
        names = list(signature.outputs)

        def run(feeds: Any) -> list[Any]:
            for name, value in feeds.items():
                network.setInput(np.ascontiguousarray(value), name)
            return [np.array(value) for value in network.forward(names)]

        return run
