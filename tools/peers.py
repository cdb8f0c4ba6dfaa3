# SPDX-License-Identifier: Apache-2.0
"""graphprune next to other pruners on torchvision's networks, none of them told anything about a single network.

::

    pip install '.[peers]'
    python tools/peers.py --resume peers.jsonl --markdown docs/peers.md
    python tools/peers.py --tools graphprune --family video

Every network is built with random weights and exported to a temporary folder, then goes through each tool, always in
a process of its own and within a time limit. Torch-Pruning gets the torch module and takes small steps until half of
the FLOPs is left; onnxsim's pruning, which has no budget, gets the simplified ONNX file and half of the channels as
its aim. What fails is recorded as such. The exit status is 1 if graphprune failed on any network.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from peers_check import TOOLS, Record
from peers_models import FAMILIES, names
from peers_table import line, write

CHECK = Path(__file__).with_name("peers_check.py")


def run(arguments: list[str], folder: Path, limit: float) -> tuple[str, str]:
    """Run a job; return what it printed and, if it did not end well, how it ended."""
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        command = [sys.executable, str(CHECK), *arguments]
        environment = {
            **os.environ,
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": "1",
        }  # idle threads spin and cost seconds
        child = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment, start_new_session=True)
        try:
            status = child.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return "", f"not done within {limit:.0f} s"
    said = (err.read_text("utf-8", errors="replace").strip().splitlines() or [""])[-1][:200]
    return out.read_text("utf-8"), f"ended with status {status}: {said}" if status else ""


def compare(name: str, tools: Iterable[str], limit: float) -> list[Record]:
    """Let each tool prune one network."""
    records = []
    with tempfile.TemporaryDirectory(prefix="graphprune-peers-") as temporary:
        folder = Path(temporary)
        file, failed = folder / f"{name}.onnx", ""
        for tool in tools:
            if tool != "torch-pruning" and not file.exists() and not failed:
                _, failed = run(["export", name, str(file)], folder, limit)
            text, ended = ("", f"export {failed}") if failed else run([tool, name, str(file)], folder, limit)
            found = [json.loads(said) for said in text.splitlines() if said.startswith("{")]
            records.append(Record(**found[-1]) if found else Record(name, tool, note=ended))
    return records


def read(file: Path | None) -> dict[tuple[str, str], Record]:
    """Return the records of a file, the newest of each network and tool."""
    lines = file.read_text("utf-8").splitlines() if file is not None and file.exists() else []
    known = {entry.name for entry in fields(Record)}
    found = [Record(**{key: value for key, value in json.loads(text).items() if key in known}) for text in lines]
    return {(record.name, record.tool): record for record in found}


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare pruners on torchvision's networks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; all of the families if none is given")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="may be given several times")
    parser.add_argument("--tools", default=",".join(TOOLS), help="comma-separated: %(default)s")
    parser.add_argument("--resume", type=Path, metavar="JSONL", help="keep records here, skip what is recorded")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one network and tool")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    options = parser.parse_args()
    wanted = options.names or [name for family in options.family or FAMILIES for name in names(family)]
    tools = options.tools.split(",")
    records = read(options.resume)
    for name in wanted:
        missing = [tool for tool in tools if (name, tool) not in records]
        for record in compare(name, missing, options.limit) if missing else ():
            records[name, record.tool] = record
            print(line(record), flush=True)
            if options.resume is not None:
                with options.resume.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(record)) + "\n")
    if options.markdown:
        write(options.markdown, list(records.values()), wanted)
    ours = [records[name, "graphprune"] for name in wanted if (name, "graphprune") in records]
    return int(any(record.result == "failed" for record in ours))


if __name__ == "__main__":
    sys.exit(main())
