# SPDX-License-Identifier: Apache-2.0
"""Small decoders of the Llama and Qwen kind, made by the tool that makes large ones."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from onnx import TensorProto

import graphprune

__all__ = ["SIZES", "decoder", "graphs"]

_TOOL = Path(__file__).parents[2] / "tools" / "llm_graphs.py"

SIZES = {"vocabulary": 40, "hidden": 24, "layers": 2, "inner": 20, "heads": 4, "groups": 2, "head": 4}
"""Sizes of the network that is built where nothing else is asked for."""


def graphs() -> Any:
    """Return the module of the tool, which is in no package."""
    if _TOOL.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(_TOOL.stem, _TOOL)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[_TOOL.stem] = module
        spec.loader.exec_module(module)
    return sys.modules[_TOOL.stem]


def decoder(folder: Path, *, elem_type: int = TensorProto.FLOAT, **sizes: Any) -> graphprune.Model:
    """Write a decoder with random weights, in a data file, and load it."""
    module, path = graphs(), folder / "decoder.onnx"
    module.build(module.Decoder(**{**SIZES, "elem_type": elem_type, **sizes}), path, seed=0)
    return graphprune.load(path)
