# SPDX-License-Identifier: Apache-2.0
"""Sessions: running a model, or a part of one, in onnxruntime, in this process.

Verification runs models that nobody vouches for, and does so in a child process. Whoever
calibrates a model with data of their own trusts it, and wants its values without a copy. It runs where
:mod:`graphprune.data.providers` says.

A run uses one thread, and several batches run at a time: so values do not depend on the number of cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphprune.array_types import Array
from graphprune.data.providers import current
from graphprune.errors import ModelFileError, OutputError, UnsupportedModelError, quote
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.tensors import is_external
from graphprune.model.unread import without_unread
from graphprune.model.validity.survey import survey
from graphprune.model.write import save
from graphprune.reproducible import in_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from onnx import ModelProto

    from graphprune.data.providers import ChosenDevice
    from graphprune.model.load import Model

__all__ = ["Session"]

Batch = Mapping[str, Array]
Outputs = list[Array]


class Session:
    """A model that is ready to run.

    Parameters
    ----------
    model : Model
        Where external weights come from.
    proto : ModelProto, optional
        What is run: the model itself by default.

    Raises
    ------
    UnsupportedModelError
        If onnxruntime cannot run it.
    """

    def __init__(self, model: Model, proto: ModelProto | None = None) -> None:
        self._name = model.name
        self._device = current()
        self._session = _open(model, model.proto if proto is None else proto, self._device)
        self._inputs = frozenset(value.name for value in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    def run(self, feeds: Batch, names: Sequence[str] | None = None) -> Outputs:
        """Return the values of the outputs, or of those that are named; what is fed beyond the inputs is left out.

        Raises
        ------
        UnsupportedModelError
            If onnxruntime fails, or a value is no tensor.
        """
        fed = {name: value for name, value in feeds.items() if name in self._inputs}
        try:
            values = self._session.run(None if names is None else list(names), fed)
        except Exception as error:  # onnxruntime has no common base for what it raises
            raise UnsupportedModelError(
                f"onnxruntime cannot run {quote(self._name)}: {_first_line(error)}", hint=_other_device(self._device)
            ) from error
        if not all(isinstance(value, np.ndarray) for value in values):
            raise UnsupportedModelError(
                f"a value of {quote(self._name)} is a sequence or a map, and cannot be captured"
            )
        return list(values)

    def run_each(self, batches: Iterable[Batch], names: Sequence[str] | None = None) -> Iterator[tuple[Batch, Outputs]]:
        """Yield every batch with what :meth:`run` gives for it, in their order; several run at the same time.

        Batches are asked for in the calling thread, a few ahead of what has been yielded.
        """
        batches = iter(batches)
        first = next(batches, None)
        if first is None:
            return
        values = self.run(first, names)
        size = sum(value.nbytes for value in values)
        yield first, values
        del first, values
        if self._device.name != "cpu":  # it works on one batch with all that it has
            yield from ((batch, self.run(batch, names)) for batch in batches)
            return
        yield from in_order(lambda batch: (batch, self.run(batch, names)), batches, size)


def _open(model: Model, proto: ModelProto, device: ChosenDevice) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    proto = without_unread(proto)
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        if any(is_external(held.tensor) for held in survey(proto).tensors):
            with scratch_folder() as folder:
                path = save(model.replaced(proto), folder / "model.onnx")
                return ort.InferenceSession(str(path), options, providers=device.providers)
        return ort.InferenceSession(proto.SerializeToString(), options, providers=device.providers)
    except (ModelFileError, OutputError, MemoryError):
        raise
    except Exception as error:  # onnxruntime has no common base for what it raises
        raise UnsupportedModelError(
            f"onnxruntime cannot run {quote(model.name)}: {_first_line(error)}", hint=_other_device(device)
        ) from error


def _other_device(device: ChosenDevice) -> str | None:
    """Return what to try where a model does not run on the graphics processor: its memory may be too small."""
    return None if device.name == "cpu" else "it ran on the graphics processor; try --device cpu"


def _first_line(error: Exception) -> str:
    return quote(str(error).strip().split("\n")[0])
