# SPDX-License-Identifier: Apache-2.0
"""LiteRT (formerly TensorFlow Lite) on the processor, converted by onnx2tf.

onnx2tf pins versions of onnx, onnxruntime and numpy that graphprune does not go with, so it stands in an environment of
its own: its program is looked for on the path, or where the environment variable ``GRAPHPRUNE_ONNX2TF`` says.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from graphprune.export.runtime import RUNTIMES, CannotConvertError, ModelSignature, NetworkRun, Runtime, call_program

__all__ = ["TfLite"]

_VARIABLE = "GRAPHPRUNE_ONNX2TF"
_PROGRAM = "onnx2tf"


@RUNTIMES.register("tflite")
class TfLite(Runtime):
    """LiteRT, through its own format: ``model.tflite``. All axes stay where ONNX has them at inputs."""

    modules = ("ai_edge_litert",)
    distribution = "ai-edge-litert"
    converts = True

    def missing(self) -> str:
        """Return which of interpreter and converter is not there."""
        converter = "" if _program() else f"{_PROGRAM} (on the path or in {_VARIABLE})"
        return ", ".join(filter(None, (super().missing(), converter)))

    def convert(self, model: Path, signature: ModelSignature, folder: Path) -> Path:
        """Convert with onnx2tf, for the given sizes."""
        program = _program()
        if program is None:
            raise CannotConvertError(f"{_PROGRAM} is not there")
        source, scrap = folder / "model.onnx", folder / "scrap"
        source.symlink_to(model)
        shapes = [f"{name}:{','.join(map(str, shape))}" for name, shape in signature.shapes.items() if shape]
        kept = list(signature.shapes)
        options = ["-o", str(scrap), "-n", "-ois", *shapes, "-kat", *kept, "-coion"]
        call_program([program, "-i", str(source), *options], folder, scrap / "model_float32.tflite")
        target = folder / "model.tflite"
        (scrap / "model_float32.tflite").replace(target)
        shutil.rmtree(scrap)
        source.unlink()
        return target

    def open(self, path: Path, signature: ModelSignature) -> NetworkRun:
        """Load it; inputs and outputs are told apart by their names, which its signature has."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner() if interpreter.get_signature_list() else None
        taken = _by_name(interpreter.get_input_details(), {} if runner is None else runner.get_input_details())
        given = interpreter.get_output_details()
        outputs = _by_name(given, {} if runner is None else runner.get_output_details())
        ordered = [outputs[name]["index"] for name in map(_plain, signature.outputs) if name in outputs]
        places = ordered if len(ordered) == len(signature.outputs) else [item["index"] for item in given]

        def run(feeds: Any) -> list[Any]:
            for name, value in feeds.items():
                item = taken.get(_plain(name), next(iter(taken.values())) if len(taken) == 1 else None)
                if item is not None:
                    interpreter.set_tensor(item["index"], value.astype(item["dtype"]))
            interpreter.invoke()
            return [interpreter.get_tensor(index).copy() for index in places]

        return run


def _by_name(tensors: list[dict[str, Any]], signed: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the tensors of a network by their plain names: those of its signature before those of the tensors."""
    own = {_plain(item["name"]): item for item in tensors}
    return own | {_plain(name): item for name, item in signed.items()}


def _program() -> str | None:
    return shutil.which(os.environ.get(_VARIABLE) or _PROGRAM)


def _plain(name: str) -> str:
    """Return a name without what TensorFlow adds, and with what it does not take replaced."""
    bare = name.split(":")[0].removeprefix("serving_default_")
    return "".join(letter if letter.isalnum() else "_" for letter in bare)
