# SPDX-License-Identifier: Apache-2.0
"""The comparison with other pruners as lines for the terminal and as a Markdown page."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from peers_check import TOOLS, Record

_INTRODUCTION = """# Side by side with other pruners

torchvision's networks with random weights, on small inputs, each through several pruners, none of which is told
anything about a single network. Made by

```
pip install '.[peers]'
python tools/peers.py --resume peers.jsonl --markdown docs/peers.md
```

*Reach* is the smallest share of the FLOPs at which a tool still gives a network that runs; *half* the share that it
gave when asked for half of the FLOPs; *CPU s* the processor seconds for that, verification apart (with several tools
on one machine at a time these are good for orders of magnitude).

- **graphprune** gets the ONNX file as exported through TorchScript, BatchNormalization in it (four networks: through
  torch's default exporter). *Exact*: the written file equals the original
  with the removed channels masked, in all outputs and common intermediate tensors, compared in onnxruntime; the number
  is the largest deviation of any tensor relative to its largest value.
- **Torch-Pruning** gets the torch module and removes a fortieth of the channels at a time until half of the FLOPs is
  left, as its examples do; everything else stands at its defaults, and only the output layer is excluded. *Runs*: the
  network still maps the input to an output of the same shape.
- **onnxsim** gets the ONNX file, simplifies it (which folds BatchNormalization) and removes half of the channels that
  it finds (`apply_structured_pruning`); it has no budget. *Runs*: the written file runs in onnxruntime.
"""
_PACKAGES = ("graphprune", "torch-pruning", "onnxsim", "torch", "torchvision", "onnx", "onnxruntime-gpu", "onnxruntime")
_GOOD = ("exact", "runs")


def line(record: Record) -> str:
    """Return a line for the terminal."""
    numbers = f"{_number(record.reach, 4):>6} {_number(record.ratio, 3):>6} {_number(record.cpu, 1):>7}"
    return f"{record.name:30} {record.tool:14} {numbers} {_result(record)}  {record.note}".rstrip()


def write(file: Path, records: Sequence[Record], names: Iterable[str]) -> None:
    """Write the page, with a row for each of the names whether it was run or not."""
    file.write_text("\n".join(_page(records, names)) + "\n", "utf-8")


def _page(records: Sequence[Record], names: Iterable[str]) -> Iterable[str]:
    """Lines of the page: what is compared, the versions, a summary, the table, and what went wrong."""
    table: dict[str, dict[str, Record]] = {name: {} for name in names}
    for record in records:
        table.setdefault(record.name, {})[record.tool] = record
    yield _INTRODUCTION
    yield f"Python {platform.python_version()}, {_versions()}.\n"
    yield from (_summary(tool, [record for record in records if record.tool == tool]) for tool in TOOLS)
    yield ""
    yield "| network |" + "".join(f" {tool}: reach | half | result | CPU s |" for tool in TOOLS)
    yield "|---|" + "--:|--:|---|--:|" * len(TOOLS)
    for name in sorted(table):
        yield f"| {name} |" + "".join(_cells(table[name].get(tool)) for tool in TOOLS)
    failures = [record for record in records if record.result == "failed"]
    if failures:
        yield "\nWhat failed, in the words of the tool, of torch or of onnxruntime:\n"
    for record in sorted(failures, key=lambda record: (record.tool, record.name)):
        yield f"- {record.tool}, {record.name}: {_words(record.note)}"


def _summary(tool: str, records: Sequence[Record]) -> str:
    """Return a sentence on one tool."""
    counts = {result: sum(record.result == result for record in records) for result in dict.fromkeys(_results(records))}
    ended = ", ".join(f"{count} {result}" for result, count in counts.items())
    met = sum(record.ratio is not None and record.ratio <= 0.5 and record.result in _GOOD for record in records)
    return f"- {tool}: {len(records)} networks; {ended}; half of the FLOPs or less with a result that runs: {met}."


def _results(records: Sequence[Record]) -> list[str]:
    return sorted(record.result for record in records)


def _cells(record: Record | None) -> str:
    if record is None:
        return " | | not run | |"
    numbers = f" {_number(record.reach, 4)} | {_number(record.ratio, 3)} |"
    return f"{numbers} {_result(record)} | {_number(record.cpu, 1)} |"


def _result(record: Record) -> str:
    return record.result if record.error is None else f"{record.result} {record.error:.0e}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _words(note: str) -> str:
    """Return an error message without paths of the machine."""
    return re.sub(r"(/[\w.-]+){3,}/", "", note).replace("|", "/").strip()


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
