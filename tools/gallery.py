# SPDX-License-Identifier: Apache-2.0
"""Well-known networks before and after, as a page with pictures: widths by layer, FLOPs, parameters, time in two runtimes.

::

    python tools/gallery.py ~/zoo --docs docs        # writes docs/gallery.md and docs/images/gallery/

FOLDER holds the networks by the names below. Each is pruned to half of its FLOPs by `bisection`, verified, and timed
against its original in onnxruntime and OpenVINO on one thread. Weights are not recovered: pictures and times do not
hang on them.
"""

from __future__ import annotations

import argparse
import datetime
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

import graphprune
from graphprune.cost.latency.environment import processor_name
from graphprune.export.deployment import DeployOptions, RuntimeCheck
from graphprune.plan.schema import LayerPlan

NETWORKS = {
    "tv_resnet18_dyn": "ResNet-18",
    "tv_resnet50_dynbn18": "ResNet-50",
    "real_mobilenet_v2_imagenet": "MobileNetV2, trained on ImageNet",
    "tv_mobilenet_v3_large_dyn": "MobileNetV3 large",
    "tv_efficientnet_b0_dynbn": "EfficientNet-B0",
    "tv_densenet121_dynbn": "DenseNet-121",
    "timm_regnety_002_dyn": "RegNetY 200 MF",
    "tv_vit_b_16_dyn": "ViT-B/16",
    "tv_swin_t_dyn": "Swin-T",
    "real_nudenet_320n": "YOLOv8 n, a trained detector",
}
"""Files, and what they are."""
BEFORE, AFTER = "#c9d3df", "#2f6fb0"
RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Entry:
    """What the page says of a network."""

    name: str
    title: str
    inputs: str
    layers: int
    flops: tuple[int, int]
    params: tuple[int, int]
    error: float
    times: dict[str, str]


def main() -> int:
    """Prune all networks; write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page and its images go")
    options = parser.parse_args()
    pictures = options.docs / "images" / "gallery"
    pictures.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, title in NETWORKS.items():
        entry, picture = made(options.folder / f"{name}.onnx", title)
        (pictures / f"{name}.png").write_bytes(picture)
        entries.append(entry)
        print(title, entry.times, flush=True)
    (options.docs / "gallery.md").write_text(page(entries), encoding="utf-8")
    return 0


def made(path: Path, title: str) -> tuple[Entry, bytes]:
    """Prune one network; return what there is to say, and its picture."""
    analysis = graphprune.analyze(graphprune.load(path))
    plan = graphprune.solve(analysis, flops=0.5)
    pruned = graphprune.apply(analysis, plan)
    verification = graphprune.verify(analysis, pruned, plan)
    shapes = plan.model.inputs
    checks = graphprune.deploy(pruned, analysis.model, options=DeployOptions(RUNTIMES, shapes)).checks
    entry = Entry(
        path.stem,
        title,
        ", ".join("x".join(map(str, shape)) for shape in shapes.values()),
        len(plan.layers),
        (plan.budget.before, plan.budget.after),
        (sum(layer.params_before for layer in plan.layers), sum(layer.params_after for layer in plan.layers)),
        verification.error,
        {check.runtime: share(check) for check in checks},
    )
    return entry, drawn(plan.layers)


def share(check: RuntimeCheck) -> str:
    """Return the time that is left."""
    return f"{100 * check.timing.ratio:.0f} %" if check.timing is not None else "–"


def drawn(layers: Sequence[LayerPlan]) -> bytes:
    """Return a picture: a bar for every layer in the order of the graph, as high as it is wide."""
    figure = Figure(figsize=(9, 1.9), layout="constrained", dpi=100)
    axes = figure.subplots()
    places = range(len(layers))
    axes.bar(places, [layer.width for layer in layers], color=BEFORE, width=1.0, label="original")
    axes.bar(places, [layer.pruned_width for layer in layers], color=AFTER, width=1.0, label="pruned")
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_ylabel("channels")
    axes.set_xlabel(f"{len(layers)} layers, in the order of the graph")
    axes.set_xticks([])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="upper left", fontsize=8)
    stream, out = io.BytesIO(), io.BytesIO()
    figure.savefig(stream, format="png")
    with Image.open(stream) as image:
        image.convert("RGB").quantize(16).save(out, "PNG", optimize=True)
    return out.getvalue()


def page(entries: Iterable[Entry]) -> str:
    """Return the page."""
    entries = list(entries)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    versions = ", ".join(f"{name} {version(name)}" for name in RUNTIMES)
    lines = [
        "# Gallery",
        "",
        "Ten networks at half of their FLOPs, by `graphprune solve MODEL --flops 0.5 --quick`. Pale bars are the channels",
        "of the original, dark ones those that stay. Each result equals its masked original to rounding; *time left* is",
        "that of the pruned network by that of the original, run in turn on one thread.",
        "",
        f"Made by `python tools/gallery.py FOLDER`, {today}, seed 0, {processor_name()}; {versions}. Weights of the",
        "networks of torchvision and timm are random; most of their pictures are small, so that they are quick to run.",
        "",
        "| network | input | FLOPs | left | parameters | left | time left, onnxruntime | OpenVINO |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
        *(row(entry) for entry in entries),
        "",
    ]
    for entry in entries:
        picture = f"images/gallery/{entry.name}.png"
        alt = f"Channels of the {entry.layers} layers of {entry.title}, before and after"
        lines += [f"## {entry.title}", "", f"![{alt}]({picture})", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def row(entry: Entry) -> str:
    """Return the row of a network."""
    (flops, flops_left), (params, params_left) = entry.flops, entry.params
    times = " | ".join(entry.times.get(name, "–") for name in RUNTIMES)
    shares = f"{100 * flops_left / flops:.1f} % | {params / 1e6:.2f} M | {100 * params_left / params:.1f} %"
    return f"| {entry.title} | {entry.inputs} | {flops / 1e9:.2f} G | {shares} | {times} |"


def version(name: str) -> str:
    """Return the version of a runtime."""
    from graphprune.export.runtime import make_runtime

    return make_runtime(name).version()


if __name__ == "__main__":
    sys.exit(main())
