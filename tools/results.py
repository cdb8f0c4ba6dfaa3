#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run every command whose figures stand in docs/results.md, one after the other, and keep what each of them prints.

    python tools/results.py --work results/ --cifar cifar10.npz --resnet20 resnet20_cifar10.onnx
    python tools/results.py --work results/ --photographs photographs/ --mobilenet mobilenet_v2.onnx
    python tools/results.py --work results/ --list

Commands whose files are not given are passed over, and named at the end. What is there from the same commit is not run
again, so a run that was ended goes on. Each command has one thread and a file of its own, NAME.txt: its command line,
the commit, the day, the processor, what it printed, and the processor time it took.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from graphprune.cost.latency.environment import processor_name

TOOLS = Path(__file__).resolve().parent
RECOVER20 = "recover_cifar.py {resnet20} {cifar} --flops 0.5"
RECOVER56 = "recover_cifar.py {resnet56} {cifar} --flops 0.5"
IMAGENET = "recover_imagenet.py {mobilenet} {photographs}"
WAYS = (
    "stage-wise:samples=0 stage-wise slimming:regularize=group-norm slimming slimming:regularize=growing white-box cac"
    " cac:estimator=first-order fbs"
)
TRAIN = f"train_cifar.py {{resnet20}} {{cifar}} --flops 0.5 --epochs 1 --images 10000 --methods {WAYS}"
COMMANDS = {
    "resnet20-uniform": f"{RECOVER20} --solver uniform --methods bn bias least-squares",
    "resnet20-bisection": f"{RECOVER20} --solver bisection --adapt l1,l2,fpgm,lamp --methods bn least-squares",
    "resnet20-stage-wise": f"{RECOVER20} --solver stage-wise",
    "resnet20-cap": f"{RECOVER20} --solver cap",
    "resnet20-sensitivity": f"{RECOVER20} --solver sensitivity --methods least-squares",
    "resnet20-full": f"{RECOVER20} --solver sensitivity --set measure=full",
    "resnet20-draws": f"{RECOVER20} --solver sensitivity --mirror --methods least-squares blocks --draw 0 1 2",
    "criteria": "criteria_cifar.py {resnet20} {cifar} --flops 0.5",
    "mobilenet-0.7": f"{IMAGENET} --solver sensitivity --flops 0.7",
    "mobilenet-copies": f"{IMAGENET} --solver sensitivity --copies 3 --flops 0.7 0.85",
    "mobilenet-swapped": f"{IMAGENET} --solver sensitivity --copies 3 --swap --flops 0.7 0.85",
    "mobilenet-uniform": f"{IMAGENET} --solver uniform --methods none least-squares",
    "mobilenet-folded": f"{IMAGENET} --solver uniform --methods none least-squares --fold",
    "resnet56-draws": f"{RECOVER56} --solver sensitivity --methods least-squares blocks --draw 0 1 2",
    "resnet56-mirrored": f"{RECOVER56} --solver sensitivity --mirror --methods least-squares blocks --draw 0 1 2",
    "text": "distil_ocr.py {ocr}",
    "detector": "distil_yolo.py {yolo} {photographs}",
    "finetune-resnet20": "finetune_cifar.py {resnet20} {cifar} --work {work}/finetune",
    "peers-finetune": "peers_finetune.py {resnet20} {cifar} --images 20000 --epochs 2",
    "train": f"{TRAIN} least-squares least-squares+finetune",
    "train-not-made-good": f"{TRAIN} csgd bisection+finetune --recover none",
    "scratch": "scratch_cifar.py {resnet20} {cifar} --epochs 6 --images 10000",
    "wide": "wide_cifar.py {resnet20} {cifar} --epochs 4 --images 10000",
    "resnet56-full": f"{RECOVER56} --solver sensitivity --set measure=full",
    "mobilenet-stage-wise": f"{IMAGENET} --solver stage-wise --flops 0.7",
    "mobilenet-blocks": f"{IMAGENET} --solver sensitivity --copies 3 --methods blocks --flops 0.7",
}
"""In the order in which they are run: what others rest on first."""


def main() -> None:
    """Run what can be run and is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is printed")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    parser.add_argument("--only", help="those whose names match a regular expression")
    for name in sorted(set(re.findall(r"\{(\w+)\}", " ".join(COMMANDS.values()))) - {"work"}):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    files = {name: str(path.resolve()) for name, path in vars(options).items() if isinstance(path, Path)}
    missing = []
    for name, command in COMMANDS.items():
        if options.only and not re.search(options.only, name):
            continue
        if options.list:
            print(f"{name}: python tools/{command}")
        elif all(file in files for file in re.findall(r"\{(\w+)\}", command)):
            run(name, command.format(**files).split(), options.work)
        else:
            missing.append(name)
    if missing:
        print(f"not run, for their files were not given: {', '.join(missing)}")


def run(name: str, arguments: list[str], work: Path) -> None:
    """Run a command of one thread, if this commit has not done so, and keep what it prints."""
    work.mkdir(parents=True, exist_ok=True)
    target, head = work / f"{name}.txt", commit()
    if target.exists() and target.read_text().splitlines()[1] == head:
        return
    print(f"{name} ...", flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(TOOLS / arguments[0]), *arguments[1:]]
    settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=False)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{name} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    seconds = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    shown = " ".join(Path(part).name for part in arguments)
    head_lines = f"python tools/{shown}\n{head}\n{day}, {processor_name()}\n"
    target.write_text(f"{head_lines}\n{done.stdout}\n{seconds:.0f} s of processor time\n")


def commit() -> str:
    """Return the commit of this checkout."""
    asked = ["git", "-C", str(TOOLS), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
