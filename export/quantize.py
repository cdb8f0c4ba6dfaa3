# SPDX-License-Identifier: Apache-2.0
"""Precision after pruning: 8-bit integers or float16, compared with the float model and kept near it.

::

    data = graphprune.open_data("images/", pruned)
    result = graphprune.quantize(pruned, data)
    print(result.error, result.floating)
    graphprune.save(result.model, "model.pruned.int8.onnx")

A part of the samples is held out. Where the outputs on these lose more than they may, the parts of the network that
lose most stay in float: one, two, four and so on, until that holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from graphprune.checks import check_fields, contained
from graphprune.choices import CalibrationMethod, NumberFormat
from graphprune.data.evaluation import compare
from graphprune.errors import NotImprovedError, UsageError, quote
from graphprune.export.deployment import number_format
from graphprune.export.half import HalfMaker
from graphprune.export.int8 import Int8Maker, saturates
from graphprune.model.files.scratch import scratch_folder
from graphprune.model.load import check_loaded
from graphprune.model.validity.survey import survey
from graphprune.model.write import file_bytes
from graphprune.phases import logged
from graphprune.surgery.marks import QUANTIZED, put_marks
from graphprune.verification.check_runs import check_runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from graphprune.data.source import Source
    from graphprune.model.load import Model

__all__ = ["QuantizeOptions", "Quantized", "quantize"]

_FEWEST = 2
_ROUNDING = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
_MOST_TRIED = 8
"""Samples on which is looked for what loses most."""


@dataclass(frozen=True)
class QuantizeOptions:
    """How a network is quantised.

    Parameters
    ----------
    precision : {"int8", "fp16"}
    samples : int
        The most samples that are read; a half of them, 256 at most, are held out.
    limit : float
        The largest squared error of the outputs on held-out samples, relative to their variance.
    method : {"minmax", "entropy", "percentile"}
        How ranges of activations follow from samples.
    reduce_range : bool or None
        Whether weights take 7 bits; by default where this processor's integer products saturate.
    shapes : mapping of str to tuple of int, optional
        Sizes of inputs for the run of what is written.
    """

    precision: NumberFormat = "int8"
    samples: int = 512
    limit: float = 0.05
    method: CalibrationMethod = "minmax"
    reduce_range: bool | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None

    def __post_init__(self) -> None:
        check_fields(self, precision=NumberFormat, method=CalibrationMethod)
        if self.samples < _FEWEST:
            raise UsageError("at least 2 samples are needed: one for ranges, one to compare")
        if not self.limit > 0:
            raise UsageError("the limit must be larger than 0")
        if self.precision == "fp16" and (self.method != "minmax" or self.reduce_range is not None):
            raise UsageError(
                "how ranges follow from samples and how many bits weights take is for 8-bit integers, not for float16",
                hint="leave out --method and --reduce-range (method, reduce_range)",
            )


@dataclass(frozen=True)
class Quantized:
    """A quantised network, and how near it is to the float one.

    Attributes
    ----------
    model : Model
    precision : str
    error : float
        Squared error of the outputs on held-out samples, relative to their variance.
    agreement : float or None
        Share of these samples with the class of the float model.
    whole_error : float
        The same error with nothing left in float.
    floating : tuple of str
        What is left in float: layers, or kinds of operators for float16.
    parts : int
        How many there are.
    samples, held_out : int
    reduce_range : bool
    size : tuple of int
        Bytes of the files before and after.
    """

    model: Model
    precision: str
    error: float
    agreement: float | None
    whole_error: float
    floating: tuple[str, ...]
    parts: int
    samples: int
    held_out: int
    reduce_range: bool
    size: tuple[int, int]


class _Maker(Protocol):
    """What makes models of lower precision."""

    parts: tuple[str, ...]

    def make(self, floating: Collection[str]) -> ModelProto:
        """Return the model with some parts left in float."""
        ...

    def ranked(self, whole: Model, samples: Source) -> list[str]:
        """Return the parts by what is lost at them, most first; `whole` has nothing left in float."""
        ...


@logged("quantising", lambda found: {"error": found.error, "bytes": list(found.size), "in float": len(found.floating)})
@contained
def quantize(
    model: Model,
    data: Source,
    options: QuantizeOptions | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Quantized:
    """Quantise a network, and keep what loses most in float.

    Parameters
    ----------
    model : Model
        In float; pruned or not.
    data : Source
        Samples as the network meets them in use; labels are not looked at.
    options : QuantizeOptions, optional
    progress : callable, optional
        Called with what is being done, how much of it is done, and how much there is to do.

    Returns
    -------
    Quantized

    Raises
    ------
    UsageError
        If there are too few samples, or the model is in 8 bits or float16 already.
    UnsupportedModelError
        If onnxruntime cannot quantise or run it.
    NotImprovedError
        If the outputs lose too much however many parts stay in float.
    VerificationError
        If what is to be written does not run as its users run it.
    """
    check_loaded(model)
    options = options or QuantizeOptions()
    kinds = {node.op_type for node in survey(model.proto).nodes}
    if kinds & _ROUNDING or any(kind.startswith("QLinear") for kind in kinds):
        raise UsageError(f"{quote(model.name)} is quantised already", hint="give the float model that it was made of")
    if number_format(model.proto) == "fp16":
        hint = "give the float32 model that it was made of"
        raise UsageError(f"{quote(model.name)} is stored in float16 already", hint=hint)
    if len(data) < _FEWEST:
        raise UsageError(f"{quote(data.name)} has {len(data)} samples: one is for ranges, another to compare")
    used = data.limited(options.samples)
    ranges, held = used.split(min(256, len(used) // 2))
    tell = progress or (lambda *_: None)
    reduced = saturates() if options.reduce_range is None else options.reduce_range
    with scratch_folder() as folder:
        maker: _Maker = (
            HalfMaker(model)
            if options.precision == "fp16"
            else Int8Maker(model, ranges, folder, options.method, reduce_range=reduced)
        )
        guard = _Guard(model, maker, held, options.limit, tell)
        made = guard.search()
        put_marks(made.proto, {QUANTIZED: options.precision})
        check_runs(made, model, options.shapes)
    return Quantized(
        model=made,
        precision=options.precision,
        error=guard.error,
        agreement=guard.agreement,
        whole_error=guard.whole_error,
        floating=guard.floating,
        parts=len(maker.parts),
        samples=len(ranges) if options.precision == "int8" else 0,
        held_out=len(held),
        reduce_range=reduced and options.precision == "int8",
        size=(file_bytes(model), file_bytes(made)),
    )


class _Guard:
    """Finds the fewest parts that have to stay in float."""

    def __init__(
        self, model: Model, maker: _Maker, held: Source, limit: float, tell: Callable[[str, int, int], None]
    ) -> None:
        self._model, self._maker, self._held = model, maker, held
        self._limit, self._tell = limit, tell
        self.floating: tuple[str, ...] = ()
        self.error = self.whole_error = 0.0
        self.agreement: float | None = None

    def search(self) -> Model:
        """Return the quantised model, with as many parts in float as it takes.

        Raises
        ------
        NotImprovedError
            If nothing helps.
        """
        self._tell("quantising", 0, 1)
        made = self._made(())
        self.whole_error = self.error
        if self.error <= self._limit:
            return made
        self._tell("looking for what loses most", 0, 1)
        order, count = self._maker.ranked(made, self._held.limited(_MOST_TRIED)), 1
        while count < len(order):
            self._tell(f"{count} in float", count, len(order))
            made = self._made(order[:count])
            if self.error <= self._limit:
                return made
            count *= 2
        raise NotImprovedError(
            f"the outputs lose {100 * self.whole_error:.2g} % of their variance where {100 * self._limit:.2g} % are "
            f"allowed, and {100 * self.error:.2g} % with half of the network left in float; nothing was written",
            hint="give more samples, another --method, or a higher --limit",
        )

    def _made(self, floating: Collection[str]) -> Model:
        """Make a model and measure it."""
        made = self._model.replaced(self._maker.make(floating))
        found = compare(self._model, made, self._held)
        self.floating, self.error, self.agreement = tuple(floating), found.relative_error, found.agreement
        return made
