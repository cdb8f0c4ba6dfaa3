# SPDX-License-Identifier: Apache-2.0
"""Capture: intermediate tensors of a model, by name, one batch after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import ModelProto, helper

from graphprune.array_types import Array
from graphprune.data.session import Session
from graphprune.errors import UsageError, quote
from graphprune.model.normalize import inline_functions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from graphprune.model.load import Model

__all__ = ["capture"]


def capture(model: Model, values: Sequence[str], feeds: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    """Run a model and yield named values of its main graph, batch by batch. Nothing is kept.

    Parameters
    ----------
    model : Model
    values : sequence of str
        Names of node outputs or graph inputs.
    feeds : iterable of mapping
        Inputs of each run.

    Raises
    ------
    UsageError
        If the model has no such value.
    UnsupportedModelError
        If onnxruntime cannot run the model.
    """
    proto = inline_functions(model.proto)
    made = {name for node in proto.graph.node for name in node.output}
    fed = {value.name for value in proto.graph.input}
    missing = [name for name in values if name not in made | fed]
    if missing:
        raise UsageError(f"the model has no value {quote(missing[0])}")
    exposed = ModelProto()
    exposed.CopyFrom(proto)
    present = {value.name for value in exposed.graph.output}
    wanted = [name for name in values if name in made]
    exposed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted if name not in present)
    session = Session(model, exposed)
    if not wanted:
        yield from ({name: batch[name] for name in values} for batch in feeds)
        return
    for batch, made_of_it in session.run_each(feeds, wanted):
        captured = dict(zip(wanted, made_of_it, strict=True))
        yield {name: captured[name] if name in captured else batch[name] for name in values}
