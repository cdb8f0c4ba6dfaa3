# SPDX-License-Identifier: Apache-2.0
"""float16 by onnxruntime's converter: weights and activations in half precision, inputs and outputs as they were."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import onnx

from graphprune.data.evaluation import compare
from graphprune.errors import UnsupportedModelError, quote
from graphprune.model.children.sandbox import shortened

if TYPE_CHECKING:
    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["HalfMaker"]


class HalfMaker:
    """Makes float16 models of one model, with some operators left in float32.

    Parameters
    ----------
    model : Model

    Attributes
    ----------
    parts : tuple of str
        Kinds of operators that can be left in float32.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.parts = tuple(dict.fromkeys(node.op_type for node in model.proto.graph.node))

    def ranked(self, whole: Model, samples: Source) -> list[str]:
        """Return the kinds of operators by what the outputs lose with only one of them in float16, most first."""
        del whole
        losses: dict[str, float] = {}
        for part in self.parts:
            made = self._model.replaced(self.make([other for other in self.parts if other != part]))
            try:
                losses[part] = compare(self._model, made, samples).relative_error
            except UnsupportedModelError:  # it does not run so
                losses[part] = float("inf")
        return sorted(self.parts, key=lambda part: -losses[part])

    def make(self, floating: Collection[str]) -> onnx.ModelProto:
        """Return the model in float16 but for some operators.

        Raises
        ------
        UnsupportedModelError
            If onnxruntime cannot convert it.
        """
        from onnxruntime.transformers import float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *floating]
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model.proto)
        try:
            converted: onnx.ModelProto = float16.convert_float_to_float16(
                copy, keep_io_types=True, op_block_list=blocked
            )
        except Exception as error:  # it raises whatever it likes
            said = shortened((str(error).strip().splitlines() or [type(error).__name__])[0])
            raise UnsupportedModelError(
                f"onnxruntime cannot convert {quote(self._model.name)} to float16: {said}"
            ) from error
        # Casts of the inputs come last; runtimes sort nodes themselves, and graphprune wants them as ONNX does.
        OnnxModel.graph_topological_sort(converted.graph)
        return converted
