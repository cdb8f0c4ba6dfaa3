# SPDX-License-Identifier: Apache-2.0
"""`graphprune synthesize`: make samples from what a model file remembers, to look at and keep."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphprune.choices import Quality
from graphprune.cli.console import print_json
from graphprune.cli.help_panels import examples
from graphprune.cli.options.device import RunningDevice
from graphprune.cli.options.model_reading import ModelReading
from graphprune.cli.options.output import Output, Printing
from graphprune.cli.spread import spread
from graphprune.cli.targets import beside, check_targets

if TYPE_CHECKING:
    from graphprune.data.synthesis.make_samples import MadeSamples

__all__ = ["synthesize"]


@examples(
    "graphprune synthesize model.onnx",
    "graphprune synthesize model.onnx --count 256 -o samples.npz --preview grid.png",
    "graphprune synthesize model.onnx --quality fine",
)
@spread
def synthesize(
    reading: ModelReading,
    output: Output,
    printing: Printing,
    device: RunningDevice,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="How many samples; fewer of large ones by default.",
            show_default=False,
            rich_help_panel="Samples",
        ),
    ] = None,
    quality: Annotated[
        Quality,
        typer.Option(
            help="fast: chosen of many. fine: refined by gradient as well, which needs torch.",
            rich_help_panel="Samples",
        ),
    ] = "fast",
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A PNG picture of some of them, if they are images.",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="INT", min=0, help="For what is drawn.", rich_help_panel="Samples")] = 0,
) -> None:
    """Make samples from what a model file remembers.

    Writes MODEL.samples.npz: the samples that `solve` makes where no data is given, as arrays by
    input name. They can be given to --calib and --data. With --quality fine they are those of
    `--calib synthetic:fine`. What a network remembers of its training data shows in them.
    """
    target = output.output or beside(reading.model, ".samples.npz")
    targets = [path for path in (target, preview) if path is not None]
    written = {"samples": target, "preview": preview}
    check_targets(written, [reading.model], force=output.force, log=printing.log)

    from graphprune import api
    from graphprune.data.signature import input_specs
    from graphprune.data.synthesis.make_samples import SampleOptions
    from graphprune.data.synthesis.preview import image_grid
    from graphprune.model.write import write_bytes_atomically
    from graphprune.recovery.made_samples import made_samples

    talk = printing.talk()
    device.select(talk)
    with talk.stage("loading"):
        loaded = api.load(reading.model)
    options = SampleOptions(count, seed=seed, shapes=reading.options().input_shapes, quality=quality)
    with talk.steps("making samples") as progress:
        made = made_samples(loaded, options, progress)
    picture = None if preview is None else image_grid(made.source, input_specs(loaded))
    with talk.stage("writing"):
        write_bytes_atomically(_archive(made), target, force=output.force)
        if preview is not None and picture is not None:
            write_bytes_atomically(picture, preview, force=output.force)
    _show(made, targets, as_json=printing.as_json)


def _archive(made: MadeSamples) -> bytes:
    """Return an .npz file of all samples."""
    import numpy as np

    file = io.BytesIO()
    feeds: dict[str, Any] = dict(made.source.read(np.arange(len(made.source), dtype=np.int64)).feeds)
    np.savez_compressed(file, **feeds)
    return file.getvalue()


def _show(made: MadeSamples, targets: list[Path], *, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "samples": len(made.source),
        "made": made.made,
        "knowledge": made.knowledge,
        "mismatch": made.mismatch,
    }
    if made.refinement is not None:
        facts["refined"] = {"passes": made.refinement.passes, "mismatch": made.refinement.mismatch}
    if as_json:
        print_json({"command": "synthesize", **facts, "kinds": dict(made.kinds), "files": list(map(str, targets))})
        return
    chosen = f"{len(made.source)}" if made.made == len(made.source) else f"{len(made.source)}, chosen of {made.made}"
    lines = [("samples", chosen), ("knowledge", made.knowledge)]
    if made.mismatch is not None:
        lines.append(("mismatch", f"{made.mismatch[0]:.4f} -> {made.mismatch[1]:.4f} by the choice; 0 is none"))
    if made.refinement is not None:
        before, after = made.refinement.mismatch
        lines.append(("refined", f"{before:.4f} -> {after:.4f} by the work of {made.refinement.passes} forward passes"))
    lines += [("output", str(path)) for path in targets]
    typer.echo("\n".join(f"{name:<10} {value}" for name, value in lines))
