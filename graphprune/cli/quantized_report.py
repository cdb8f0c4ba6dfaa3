# SPDX-License-Identifier: Apache-2.0
"""What is said of a quantised network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from graphprune.choices import NumberFormat
    from graphprune.cli.console import Talk
    from graphprune.data.source import Source
    from graphprune.export.quantize import Quantized

__all__ = ["QuantizedFile", "quantized_facts", "quantized_lines"]

_NAMED = 6


@dataclass
class QuantizedFile:
    """A pruned file in lower precision, the last step of `solve`.

    Parameters
    ----------
    pruned : Path
    target : Path
        Where it goes.
    precision : {"int8", "fp16"}
    samples : Source
    made : bool
        Whether the samples were made.
    result : Quantized, optional
        What was written.
    """

    pruned: Path
    target: Path
    precision: NumberFormat
    samples: Source
    made: bool
    result: Quantized | None = None

    def write(self, shapes: Mapping[str, tuple[int, ...]], talk: Talk, *, force: bool) -> None:
        """Quantise and write.

        Raises
        ------
        NotImprovedError
            If the outputs lose too much.
        UnsupportedModelError
            If onnxruntime cannot quantise the network.
        """
        from graphprune import api
        from graphprune.export.quantize import QuantizeOptions, quantize

        with talk.steps("quantising") as progress:
            options = QuantizeOptions(self.precision, shapes=shapes)
            result = quantize(api.load(self.pruned), self.samples, options, progress=progress)
        with talk.stage("writing"):
            api.save(result.model, self.target, force=force)
        self.result = result

    def lines(self) -> list[tuple[str, str]]:
        """Return what there is to print."""
        if self.result is None:
            return []
        return [
            (("quantised" if name == "output" else name), text)
            for name, text in quantized_lines(self.result, self.target, made=self.made)
        ]

    def facts(self) -> dict[str, Any] | None:
        """Return the same for machines."""
        return None if self.result is None else quantized_facts(self.result, self.target, made=self.made)


def quantized_lines(result: Quantized, written: Path | None, *, made: bool) -> list[tuple[str, str]]:
    """Return what there is to print, name by name.

    Parameters
    ----------
    made : bool
        Whether the samples were made, so that nothing here is an accuracy.
    """
    from graphprune.report.text import file_size, plural

    before, after = result.size
    how = "float16" if result.precision == "fp16" else f"8 bits{', weights 7' if result.reduce_range else ''}"
    samples = f"on {plural(result.held_out, 'made sample' if made else 'sample')} held out"
    lines = [
        ("precision", how),
        ("file size", f"{file_size(before)} -> {file_size(after)} ({100 * after / before:.1f} %)"),
        ("error", f"{100 * result.error:.2g} % of the variance of the outputs, {samples}"),
    ]
    if after >= before:
        lines.append(("note", "the file is no smaller than the float one"))
    if result.agreement is not None:
        lines.append(("agreement", f"{100 * result.agreement:.1f} % with the classes of the float model, {samples}"))
    if result.floating:
        names = ", ".join(result.floating[:_NAMED])
        more = f" and {len(result.floating) - _NAMED} more" if len(result.floating) > _NAMED else ""
        lines.append(
            (
                "in float",
                f"{len(result.floating)} of {result.parts}, which lose most: {names}{more}; with all quantised the "
                f"error is {100 * result.whole_error:.2g} %",
            )
        )
    if written is not None:
        lines.append(("output", str(written)))
    return lines


def quantized_facts(result: Quantized, written: Path | None, *, made: bool) -> dict[str, Any]:
    """Return the same for machines."""
    return {
        "precision": result.precision,
        "error": result.error,
        "agreement": result.agreement,
        "error_without_floats": result.whole_error,
        "in_float": list(result.floating),
        "parts": result.parts,
        "samples": result.samples,
        "held_out": result.held_out,
        "made_samples": made,
        "reduce_range": result.reduce_range,
        "bytes_before": result.size[0],
        "bytes_after": result.size[1],
        "output": None if written is None else str(written),
    }
