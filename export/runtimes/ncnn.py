# SPDX-License-Identifier: Apache-2.0
"""ncnn on the processor, converted by pnnx."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from graphprune.export.runtime import RUNTIMES, CannotConvertError, ModelSignature, NetworkRun, Runtime, call_program

__all__ = ["Ncnn"]

_SUFFIXES = {"float32": "f32", "float16": "f16", "float64": "f64", "int32": "i32", "int64": "i64", "uint8": "u8"}
_HALVES = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_vulkan_compute")


@RUNTIMES.register("ncnn")
class Ncnn(Runtime):
    """ncnn, through its own format: ``model.param`` and ``model.bin``. It knows no batch axis."""

    modules = ("ncnn", "pnnx")
    refused = frozenset({"int8", "fp16"})
    distribution = "ncnn"
    converts = True

    def convert(self, model: Path, signature: ModelSignature, folder: Path) -> Path:
        """Convert with pnnx, for the given sizes."""
        unknown = sorted({kind for kind in signature.dtypes.values() if kind not in _SUFFIXES})
        if unknown:
            raise CannotConvertError(f"pnnx takes no inputs of type {', '.join(unknown)}")
        shapes = ",".join(
            f"[{','.join(map(str, shape))}]{_SUFFIXES[signature.dtypes[name]]}"
            for name, shape in signature.shapes.items()
        )
        source, target = folder / "network.onnx", folder / "model.param"
        source.symlink_to(model)  # it writes beside what it reads
        names = {"ncnnparam": "model.param", "ncnnbin": "model.bin", "ncnnpy": "scrap.py"}
        names |= {"pnnxparam": "scrap.param", "pnnxbin": "scrap.bin", "pnnxpy": "scrap_.py", "pnnxonnx": "scrap.onnx"}
        files = [f"{key}={name}" for key, name in names.items()]
        call_program([_program(), source.name, f"inputshape={shapes}", "fp16=0", *files], folder, target)
        for left in (*folder.glob("scrap*"), *folder.glob("network*")):
            left.unlink()
        return target

    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Load it; inputs and outputs are numbered in the order of the file."""
        import ncnn
        import numpy as np

        network = ncnn.Net()
        network.opt.num_threads = 1
        for option in _HALVES:
            setattr(network.opt, option, False)
        if network.load_param(str(path)) or network.load_model(str(path.with_suffix(".bin"))):
            raise CannotConvertError("ncnn has no layer of a kind that pnnx wrote")
        inputs, outputs = sorted(network.input_names(), key=_number), sorted(network.output_names(), key=_number)
        names = list(signature.shapes)

        def run(feeds: Any) -> list[Any]:
            extractor = network.create_extractor()
            for own in inputs:
                value = feeds[names[_number(own)]]
                batch = value.ndim > 1 and value.shape[0] == 1
                extractor.input(own, ncnn.Mat(np.ascontiguousarray(value[0] if batch else value)).clone())
            values = []
            for own in outputs:
                code, value = extractor.extract(own)
                if code:
                    raise RuntimeError(f"ncnn ended with code {code} at {own}")
                values.append(np.array(value))
            return values

        return run


def _program() -> str:
    """Return the program inside the package; importing that would load torch."""
    spec = find_spec("pnnx")
    if spec is None or spec.origin is None:
        raise CannotConvertError("pnnx is not installed")
    return str(Path(spec.origin).with_name("pnnx.exe" if sys.platform == "win32" else "pnnx"))


def _number(name: str) -> int:
    """Return the place of ``in3`` or ``out3``."""
    return int(name.lstrip("inout"))
