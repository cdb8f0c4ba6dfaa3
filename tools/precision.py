# SPDX-License-Identifier: Apache-2.0
"""Prune and quantise networks, and print size, time and accuracy of each state in each precision.

::

    python tools/precision.py resnet20_cifar10.onnx cifar10.npz --flops 0.5 --solver sensitivity
    python tools/precision.py mobilenet_v2.onnx photographs/ --flops 0.7 --page docs/precision.md --title MobileNetV2

The states are the original, the network that was only pruned, and that which was recovered by least squares as well;
and the original quantised first and pruned afterwards. Data is an archive with x_train, x_test (uint8, NHWC) and
y_test, of whose training images the first 1,024 calibrate; or a folder of photographs of 224x224 pixels that are named
after their class, of which, in the order of their names, every second one calibrates and the others are evaluated.
Labels are looked at for the figures that are printed, and for nothing else. One thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from recover_cifar import CALIBRATION, source

import graphprune
from graphprune.cost.latency.bench import paired_timing
from graphprune.cost.latency.environment import here
from graphprune.export.int8 import saturates


@dataclass(frozen=True)
class Row:
    """One network in one precision."""

    state: str
    precision: str
    size: int
    milliseconds: float
    ratio: float
    accuracy: float
    error: float | None = None
    floating: int = 0
    parts: int = 0

    def line(self) -> str:
        """Return it as a line of a table."""
        error = "–" if self.error is None else f"{100 * self.error:.2g} %"
        left = f", {self.floating} of {self.parts} layers in float" if self.floating else ""
        time = f"{self.milliseconds:.2f} | {self.ratio:.2f}"
        size = f"{self.size / 1e3:,.0f}"
        return f"| {self.state} | {self.precision}{left} | {size} | {time} | {100 * self.accuracy:.2f} % | {error} |"


HEAD = f"""| network | numbers | kB | ms | time by the original's | top-1 | error to its float form |
|{"---|" * 7}"""


def main() -> None:
    """Print the table, or write it into a page."""
    options = parse()
    model = graphprune.load(options.model)
    calibration, test = opened(options.data, model)
    rows = list(measured(options, model, calibration, test))
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    vnni = "saturates" if saturates() else "does not saturate"
    how = (
        f"`python tools/precision.py {options.model.name} {options.data.name} --flops {options.flops:g} "
        f"--solver {options.solver}`, {today}, {here().processor} ({vnni}), one thread, onnxruntime "
        f"{onnxruntime.__version__}, seed 0, {len(calibration)} images without labels calibrate, {len(test)} evaluate."
    )
    text = "\n".join([how, "", HEAD, *(row.line() for row in rows)])
    if options.page is None:
        print(text)
    else:
        replace_section(options.page, options.title or options.model.stem, text)


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--solver", default="bisection")
    parser.add_argument("--page", type=Path, help="whose section is replaced or added")
    parser.add_argument("--title", help="of the section")
    return parser.parse_args()


def opened(data: Path, model: graphprune.Model) -> tuple[graphprune.Source, graphprune.Source]:
    """Return what calibrates, and what is evaluated."""
    if data.is_dir():
        from PIL import Image

        paths = sorted(data.glob("*.jpg"))
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in paths])
        labels = np.array([int(file.stem) for file in paths], np.int64)
        return source(model, images[0::2]), source(model, images[1::2], labels[1::2])
    with np.load(data) as arrays:
        test = source(model, arrays["x_test"], arrays["y_test"].astype(np.int64))
        return source(model, arrays["x_train"][:CALIBRATION]), test


def measured(
    options: argparse.Namespace, model: graphprune.Model, calibration: graphprune.Source, test: graphprune.Source
) -> Iterator[Row]:
    """Yield every state in every precision."""
    chosen = graphprune.SolveOptions(solver=options.solver)
    plan = graphprune.solve(model, options=chosen, data=calibration, flops=options.flops)
    pruned = graphprune.apply(model, plan)
    graphprune.verify(model, pruned, plan)
    recovered = graphprune.recover(model, pruned, plan, calibration).model
    with tempfile.TemporaryDirectory(prefix="graphprune-precision-") as folder:
        bench = Bench(Path(folder), model, test, dict(plan.model.inputs))
        for state, network in (("original", model), ("pruned", pruned), ("recovered", recovered)):
            yield bench.row(state, "float32", network)
            for precision in ("int8", "fp16"):
                made = graphprune.quantize(network, calibration, graphprune.QuantizeOptions(precision))
                if (state, precision) == ("original", "int8"):
                    whole = made.model
                yield bench.row(state, precision, made.model, made)
        plan = graphprune.solve(whole, flops=options.flops)
        smaller = graphprune.apply(whole, plan)
        graphprune.verify(whole, smaller, plan)
        yield bench.row("int8 first, then pruned", "int8", smaller)


class Bench:
    """Measures networks against the original."""

    def __init__(
        self, folder: Path, original: graphprune.Model, test: graphprune.Source, shapes: dict[str, tuple[int, ...]]
    ) -> None:
        self._folder, self._test, self._shapes = folder, test, shapes
        self._original = graphprune.save(original, folder / "original.onnx")

    def row(
        self, state: str, precision: str, network: graphprune.Model, made: graphprune.Quantized | None = None
    ) -> Row:
        """Return what is measured of a network."""
        path = graphprune.save(network, self._folder / "network.onnx", force=True)
        timing = paired_timing(self._original, path, self._shapes)
        accuracy = graphprune.evaluate(network, self._test).top1 or 0.0
        size = path.stat().st_size
        row = Row(state, precision, size, 1e3 * timing.after, timing.ratio, accuracy)
        if made is not None:
            row = Row(
                *(state, precision, size, 1e3 * timing.after, timing.ratio, accuracy),
                *(made.error, len(made.floating), made.parts),
            )
        print(row.line(), flush=True)
        return row


def replace_section(page: Path, title: str, text: str) -> None:
    """Replace or append the section with a title."""
    head, found, rest = page.read_text("utf-8").partition(f"## {title}\n")
    _, following, after = rest.partition("\n## ")
    tail = f"\n## {after}" if following else ""
    page.write_text(f"{head if found else head.rstrip() + chr(10) * 2}## {title}\n\n{text}\n{tail}", "utf-8")


if __name__ == "__main__":
    main()
