# SPDX-License-Identifier: Apache-2.0
"""MNN on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphprune.export.runtime import RUNTIMES, CannotConvertError, ModelSignature, NetworkRun, Runtime

__all__ = ["Mnn"]


@RUNTIMES.register("mnn")
class Mnn(Runtime):
    """MNN, through its own format: ``model.mnn``."""

    modules = ("MNN",)
    refused = frozenset({"int8"})
    distribution = "mnn"
    converts = True

    def convert(self, model: Path, signature: ModelSignature, folder: Path) -> Path:
        """Convert with the converter that comes with the package."""
        import _tools

        del signature
        target = folder / "model.mnn"
        files = ("--modelFile", str(model), "--MNNModel", str(target))
        converted = _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, "--bizCode", "MNN"])
        if not converted or not target.exists():
            raise CannotConvertError("mnnconvert failed; what it said is above")
        return target

    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Load it as a module, which may have branches and loops."""
        import MNN
        import numpy as np

        manager = MNN.nn.create_runtime_manager(({"backend": 0, "numThread": 1, "precision": "high"},))
        names, outputs = list(signature.shapes), list(signature.outputs)
        network = MNN.nn.load_module_from_file(str(path), names, outputs, runtime_manager=manager)
        expression = MNN.expr
        types = {
            "float32": expression.float,
            "int32": expression.int,
            "int64": expression.int,
            "uint8": expression.uint8,
        }

        def fed(name: str, value: Any) -> Any:
            kind = str(value.dtype)
            if kind not in types:
                raise CannotConvertError(f"MNN takes no input of type {kind}")
            narrow = np.ascontiguousarray(value, np.int32 if kind == "int64" else value.dtype)
            return expression.const(narrow, list(value.shape), expression.NCHW, types[kind])

        def run(feeds: Any) -> list[Any]:
            values = network.forward([fed(name, feeds[name]) for name in names])
            return [np.array(expression.convert(value, expression.NCHW).read()) for value in values]

        return run
