# SPDX-License-Identifier: Apache-2.0
"""Room: what memory onnxruntime needs to run a model as a whole, and whether this machine has it.

A session holds weights twice: as they are stored, and packed for its kernels. Halves are turned into float32 first,
where the processor has no kernels for them; that may happen when the model is opened, for all of them.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphprune.model.files.main_memory import main_memory
from graphprune.model.tensors import FLOATS, count_bytes
from graphprune.model.validity.survey import survey

if TYPE_CHECKING:
    from graphprune.model.load import Model

__all__ = ["has_room", "room_needed"]

_COPIES = 8
"""Bytes per weight of a float32 copy and of a packed one."""
_SHARE = 0.5
"""Of main memory that one comparison may take: others want some, too."""


def room_needed(model: Model) -> int:
    """Return about how many bytes one session needs for the weights of a model."""
    tensors = [held.tensor for held in survey(model.proto).tensors]
    copied = sum(prod(tensor.dims) for tensor in tensors if tensor.data_type in FLOATS)
    return sum(map(count_bytes, tensors)) + _COPIES * copied


def has_room(needed: int) -> bool:
    """Whether a comparison may take so many bytes."""
    return needed <= _SHARE * main_memory()
