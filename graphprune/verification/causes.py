# SPDX-License-Identifier: Apache-2.0
"""Causes: why a comparison did not come to its end.

The original is run first; if it does not run, that is the answer.
"""

from __future__ import annotations

import contextlib
import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from graphprune.analysis.analysis import Analysis
from graphprune.errors import (
    GraphPruneError,
    ModelFileError,
    RequestError,
    UnsafeModelError,
    UnsupportedModelError,
    VerificationError,
    quote,
)
from graphprune.model.children.allowance import allow
from graphprune.model.children.sandbox import OUT_OF_TIME, ChildError, run_child
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.graph import Graph
from graphprune.model.load import Model
from graphprune.model.normalize import inline_functions
from graphprune.model.sizes.inputs import assumed, input_shapes
from graphprune.model.sizes.usual_shapes import usual_shapes
from graphprune.model.tensors import FLOATS
from graphprune.model.values.bodies import DOMAIN
from graphprune.verification.room import has_room, room_needed
from graphprune.verification.sizes import input_specs
from graphprune.verification.spec import SOURCE, Spec
from graphprune.verification.staging import stage_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnx import TypeProto

__all__ = ["blame", "blames_the_file", "blaming", "strange_domains"]

Function = TypeVar("Function", bound="Callable[..., Any]")

_PLAIN = "PlainError: "
_DRAWS = "DrawsError: "
_KNOWN_DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"))
_NO_KERNEL = "NotImplemented: Could not find an implementation"
_PATIENCE = 60.0
_FASTER = "check that both models run in onnxruntime; --input-shape NAME=1x3x64x64 makes it faster"


def blame(analysis: Analysis, error: ChildError, timeout: float) -> GraphPruneError:
    """Say why there is no comparison.

    Returns
    -------
    UnsupportedModelError
        Where the original itself does not run: the file is at fault, the sizes that were assumed for it, or it has
        operators that onnxruntime does not bring along.
    VerificationError
        Otherwise.
    """
    if OUT_OF_TIME in error.message:
        return VerificationError(f"the pruned model could not be verified: {error.message}", hint=_FASTER)
    runs = has_room(room_needed(analysis.model))
    trouble = _trouble(analysis.model, analysis.graph, analysis.input_shapes, timeout) if runs else ""
    if trouble and strange_domains(analysis):  # other runtimes may know them
        return UnsupportedModelError(
            f"the pruned model could not be verified, since the original does not run: {trouble}", hint=_FASTER
        )
    if trouble:
        return _of_the_file(analysis, trouble)
    _, masked, what = error.message.partition(_DRAWS)
    if masked:
        return UnsupportedModelError(
            f"the model reads where its values say, and does not run with some of its channels set to zero: {what}",
            hint="nothing can be compared with the pruned model on random inputs; leave the layers in front of what is "
            "named whole (--skip), or lead it out of the model",
        )
    before, plain, what = error.message.partition(_PLAIN)
    if plain:
        return VerificationError(
            f"the pruned file does not do what its users expect of it: {before}{what}",
            hint="this is a fault of graphprune, please report it; nothing was written",
        )
    return VerificationError(f"the pruned model could not be verified: {error.message}", hint=_FASTER)


@contextmanager
def blaming(model: Model | Analysis, given: Mapping[str, Sequence[int]] | None = None) -> Iterator[None]:
    """Ask onnxruntime whose fault it is where something that is done with a model fails in an unforeseen way.

    Rules trust what ONNX demands of a file. Where one breaks it, they raise whatever they like, and onnxruntime says
    better what is wrong.

    Parameters
    ----------
    model : Model or Analysis
    given : mapping of str to sequence of int, optional
        Shapes of inputs; others are the usual ones.

    Raises
    ------
    ModelFileError
        If the model does not run; what runs, and still fails, is our fault. So it is where nothing could be removed:
        what breaks the rules is left whole, and that is not what its user has to know.
    """
    try:
        yield
    except VerificationError as error:  # of what came out: a file that breaks the rules is cut as if it did not
        _raise_trouble(model, given, error)
        raise
    except RequestError as error:
        _raise_refusal(model, given, error)
        raise
    except (GraphPruneError, MemoryError):
        raise
    except Exception as error:  # as said above: whatever they like
        _raise_trouble(model, given, error)
        raise


def _raise_trouble(model: Model | Analysis, given: Mapping[str, Sequence[int]] | None, error: Exception) -> None:
    """Raise what onnxruntime says of a model that it does not run."""
    loaded = model if isinstance(model, Model) else model.model
    graph = Graph(inline_functions(loaded.proto))
    trouble = _trouble(loaded, graph, _shapes(loaded, graph, given), _PATIENCE)
    if trouble:
        raise _does_not_run(trouble) from error


def _does_not_run(trouble: str) -> ModelFileError:
    return ModelFileError(
        f"the model does not run: {trouble}", hint="check that onnxruntime opens and runs it, or export it again"
    )


def _raise_refusal(model: Model | Analysis, given: Mapping[str, Sequence[int]] | None, error: RequestError) -> None:
    """Raise what onnxruntime says of a model that it does not run, whatever is made up for its inputs.

    A model is opened only where what is made up may be at fault: open sizes, and lists of integers, which may be sizes.
    Where a run does not end, or is not afforded, nothing is known.
    """
    loaded = model if isinstance(model, Model) else model.model
    graph = Graph(inline_functions(loaded.proto))
    if _strange(graph) or not has_room(room_needed(loaded)):
        return
    known = model.input_shapes if isinstance(model, Analysis) else given
    lists = [len(kind.tensor_type.shape.dim) < 2 for kind in graph.inputs.values() if not _is_real(kind)]
    trouble = ""
    with contextlib.suppress(UnsafeModelError):
        shapes = _shapes(loaded, graph, known)
        trouble = _trouble(
            loaded, graph, shapes, _PATIENCE, opened_only=any(lists) or bool(assumed(graph, known or {}))
        )
    if trouble and OUT_OF_TIME not in trouble:
        refused = _does_not_run(trouble)
        if _NO_KERNEL in trouble and error.hint:
            refused.hint = error.hint  # of what no kernel is known for, it says more: that an optimiser made it, say
        raise refused from error


def _is_real(kind: TypeProto) -> bool:
    return kind.tensor_type.elem_type in FLOATS


def _shapes(model: Model, graph: Graph, given: Mapping[str, Sequence[int]] | None) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes that an analysis would choose; the usual ones where choosing is what fails."""
    try:
        return usual_shapes(model, given)
    except GraphPruneError:
        raise
    except Exception:  # the file breaks a rule, as is said by what comes of running it
        return input_shapes(graph, given)


def blames_the_file(function: Function) -> Function:
    """Do all that a function does, whose first argument is a model, under :func:`blaming`."""

    @functools.wraps(function)
    def guarded(model: Model | Analysis, *args: Any, **kwargs: Any) -> Any:
        with blaming(model):
            return function(model, *args, **kwargs)

    return cast(Function, guarded)


def _trouble(
    model: Model, graph: Graph, shapes: Mapping[str, tuple[int, ...]], timeout: float, *, opened_only: bool = False
) -> str:
    """Run a model as its users do, and return what onnxruntime says of it; empty if it runs.

    A model that cannot be fed from numpy is opened only.
    """
    inputs = input_specs(graph, shapes)
    fed = len(inputs) == len(graph.inputs) and all(info.dtype != "bfloat16" for info in inputs.values())
    fed = fed and not opened_only
    allowance = allow([model], shapes, timeout)
    with scratch_folder() as place:

        def lay_out() -> None:
            stage_file(model, place / SOURCE)
            Spec(inputs=inputs, tensors=[], outputs=list(graph.outputs), plain=fed).write(place)

        try:
            return str(run_child("graphprune.verification.plain_run", place, allowance, lay_out)["trouble"])
        except ChildError as error:
            return error.message


def _of_the_file(analysis: Analysis, trouble: str) -> UnsupportedModelError:
    shapes = {name: "x".join(map(str, shape)) for name, shape in analysis.input_shapes.items()}
    if analysis.assumed:
        told = ", ".join(f"{quote(name)} {shapes[name]}" for name in analysis.assumed)
        return UnsupportedModelError(
            f"the model itself does not run with the sizes that were assumed for its open dimensions ({told}): "
            f"{trouble}",
            hint=f"give sizes with which it runs, e.g. --input-shape {_example(analysis)}",
        )
    return UnsupportedModelError(
        f"the model itself does not run in onnxruntime: {trouble}",
        hint="check that it runs there with inputs "
        + ", ".join(f"{quote(name)} {shape}" for name, shape in shapes.items()),
    )


def _example(analysis: Analysis) -> str:
    """Return a larger shape of an input, as it would be given."""
    name, axes = next(iter(analysis.assumed.items()))
    sizes = [max(size * 2, 512) if axis in axes else size for axis, size in enumerate(analysis.input_shapes[name])]
    return f"{name}={'x'.join(map(str, sizes))}"


def strange_domains(analysis: Analysis) -> list[str]:
    """Return the domains of operators that onnxruntime does not bring along."""
    return _strange(analysis.graph)


def _strange(graph: Graph) -> list[str]:
    return sorted({quote(node.domain) for node in graph.nodes if node.domain not in {*_KNOWN_DOMAINS, DOMAIN}})
