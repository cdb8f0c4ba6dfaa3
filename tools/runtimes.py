# SPDX-License-Identifier: Apache-2.0
"""Halve networks and try them in every runtime that is installed, beside their originals; write the table into a page.

::

    python tools/runtimes.py ~/zoo --work runtimes/ --page docs/runtimes.md

FOLDER holds the networks by the names below (`--only` takes some of them, and any others). Each is pruned to half of
its FLOPs by `bisection` and tried as `graphprune deploy` does, on random inputs of seed 0. What came of one stays in
the folder `--work`, so that a run that was ended goes on. The exit status is 1 if the original works in some runtime
and the pruned network does not. `--check tflite --add` tries a runtime more on networks that were tried before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import graphprune
from graphprune.cost.latency.environment import here
from graphprune.export.deploy import installed
from graphprune.export.deployment import Deployment, DeployOptions, RuntimeCheck, RuntimeOutcome
from graphprune.report.runtime_table import outcome_line

NETWORKS = {
    "tv_resnet18_dynbn": "ResNet-18",
    "real_mobilenet_v2_imagenet": "MobileNetV2",
    "tv_mobilenet_v3_small_dynbn": "MobileNetV3 small",
    "tv_shufflenet_v2_x0_5_dyn": "ShuffleNetV2",
    "tv_densenet121_dynbn": "DenseNet-121",
    "timm_regnety_002_dyn": "RegNetY",
    "timm_test_vit_legbn17": "ViT (small)",
    "timm_swin_tiny_patch4_window7_224_leg17": "Swin-T",
    "real_nudenet_320n": "YOLOv8 n (detector)",
    "real_vietcombank_captcha": "captchas (Keras)",
    "struct_ddddocr_common": "OCR with LSTM",
    "real_silero_vad": "Silero VAD (LSTM, If)",
}
"""Files, and what they are."""
SHAPES = {"real_silero_vad": {"input": (1, 256), "state": (2, 1, 128), "sr": ()}}
"""Sizes of open dimensions, where a network is used with others than the usual ones."""
SEED = 0
SECTION = "## What was measured"
"""The last section of the page."""


def main() -> int:
    """Try every network and write the page."""
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    names = arguments.only.split(",") if arguments.only else list(NETWORKS)
    records = [tried(arguments.folder / f"{name}.onnx", arguments) for name in names]
    text = "\n".join([heading(records), "", *table(records), "", *reasons(records), "", *times(records)])
    if arguments.page is None:
        print(text)
    else:
        replace_section(arguments.page, text)
    return int(any(record["worse"] for record in records))


def replace_section(page: Path, text: str) -> None:
    """Replace what stands in a page from its last heading on."""
    written = page.read_text("utf-8")
    before = written[: written.index(f"{SECTION}\n")]
    page.write_text(f"{before}{SECTION}\n\n{text}\n", "utf-8")


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runtimes"), help="what came of each network")
    parser.add_argument("--page", type=Path, help="the page whose table is replaced; by default it is printed")
    parser.add_argument("--only", help="names of files without .onnx, with commas")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--check", help="runtimes, with commas; by default all that are installed")
    parser.add_argument("--add", action="store_true", help="try runtimes that were not tried before")
    parser.add_argument("--patience", type=float, default=300.0)
    return parser.parse_args()


def tried(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what came of a network, from the folder if it is there."""
    kept = arguments.work / f"{path.stem}.json"
    known: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    if known and not arguments.add:
        return known
    model = graphprune.analyze(graphprune.load(path), graphprune.AnalyzeOptions(SHAPES.get(path.stem, {})))
    plan = graphprune.solve(model, flops=arguments.flops)
    pruned = graphprune.apply(model, plan)
    runtimes = tuple(arguments.check.split(",")) if arguments.check else installed()
    options = DeployOptions(runtimes, plan.model.inputs, patience=arguments.patience, seed=SEED)
    record = facts(path.stem, graphprune.deploy(pruned, model.model, options=options))
    print(path.stem, *(cell(entry) for entry in record["checks"]), sep="  ", file=sys.stderr, flush=True)
    if known:
        tried_now = {entry["runtime"] for entry in record["checks"]}
        record["checks"] = [e for e in known["checks"] if e["runtime"] not in tried_now] + record["checks"]
        record["worse"] = sorted({*record["worse"], *(name for name in known["worse"] if name not in tried_now)})
    kept.write_text(json.dumps(record, indent=1), "utf-8")
    return record


def facts(name: str, deployment: Deployment) -> dict[str, Any]:
    """Return what is kept of a network."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    checks = [asdict(check) for check in deployment.checks]
    inputs = {name: list(shape) for name, shape in deployment.inputs.items()}
    known = {"date": today, "processor": here().processor, "inputs": inputs}
    return {"name": name, "checks": checks, "worse": list(deployment.worse), **known}


def outcome(entry: dict[str, Any] | None) -> RuntimeOutcome | None:
    """Return an outcome as it was kept."""
    return None if entry is None else RuntimeOutcome(**entry)


def cell(entry: dict[str, Any]) -> str:
    """Return what a runtime makes of a pruned network, and of the original where that is not the same."""
    if entry["missing"]:
        return "not installed"
    pruned, dense = outcome(entry["pruned"]), outcome(entry["dense"])
    own, other = outcome_line(pruned), outcome_line(dense)
    if pruned is not None and dense is not None and pruned.status == dense.status == "ok":
        return own
    if own == other:
        return f"{own}, as the original"
    worse = RuntimeCheck(entry["runtime"], pruned=pruned, dense=dense).is_worse
    return f"**{own}** (original: {other})" if worse else f"{own} (original: {other})"


def heading(records: list[dict[str, Any]]) -> str:
    """Return what the table was made with."""
    versions = {entry["runtime"]: entry["version"] for record in records for entry in record["checks"]}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    dates = sorted({record["date"] for record in records})
    machines = ", ".join(sorted({record["processor"] for record in records}))
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Made by `tools/runtimes.py`, {when}, on {machines}, one thread, random inputs of seed {SEED}; {listed}."


def columns(records: list[dict[str, Any]]) -> list[str]:
    """Return the runtimes, in the order in which they were tried."""
    return list(dict.fromkeys(entry["runtime"] for record in records for entry in record["checks"]))


def rows(records: list[dict[str, Any]], head: str, show: Any) -> list[str]:
    """Return a table with a line for each network and a column for each runtime."""
    names = columns(records)
    lines = [f"| {head} | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for record in records:
        by_name = {entry["runtime"]: entry for entry in record["checks"]}
        cells = [show(by_name[name]) if name in by_name else "–" for name in names]
        lines.append(f"| {NETWORKS.get(record['name'], record['name'])} | {' | '.join(cells)} |")
    return lines


def table(records: list[dict[str, Any]]) -> list[str]:
    """Return what every runtime makes of every network."""
    return rows(records, "network at half of its FLOPs", cell)


def times(records: list[dict[str, Any]]) -> list[str]:
    """Return the time of the pruned networks by that of their originals."""

    def ratio(entry: dict[str, Any]) -> str:
        return f"{entry['timing']['ratio']:.2f}" if entry["timing"] else "–"

    text = "Processor time of the pruned network by that of the original, both run in turn (median of the pairs):"
    return [text, "", *rows(records, "network", ratio)]


def reasons(records: list[dict[str, Any]]) -> list[str]:
    """Return why runtimes do not take networks, in their own words."""
    lines = []
    for record in records:
        for entry in record["checks"]:
            said = {which: entry[which]["reason"] for which in ("pruned", "dense") if entry[which]}
            for which, text in said.items():
                if text and not (which == "dense" and text == said.get("pruned")):
                    subject = f"{NETWORKS.get(record['name'], record['name'])} in {entry['runtime']}"
                    lines.append(f"- {subject}{', original' if which == 'dense' else ''}: `{text.replace('`', '')}`")
    return ["What runtimes say where they do not take a network:", "", *lines] if lines else []


if __name__ == "__main__":
    sys.exit(main())
