# SPDX-License-Identifier: Apache-2.0
"""Commands are killed at random moments: no file may be half of anything, and the next run must work.

`SIGKILL` is sent to the command's process alone, as the system does when memory runs out. A third of the kills come at
any moment of a run, a third late in it, and a third as soon as something is being written beside the target.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from attacks.fuzz import TESTS
from attacks.journal import Journal
from attacks.processes import Run, run

__all__ = ["kill_commands"]

MODEL, PRUNED, PLAN = "net.onnx", "net.pruned.onnx", "net.plan.json"
_EVERY_TRAIN = 25
_QUICK = ("--quick", "--round-to", "1")
_TRAIN = (
    *("train", MODEL, "--data", "data.npz", "--method", "cac", "--flops", "0.7", "--round-to", "1"),
    *("--epochs", "4", "--batch", "16", "--checkpoint-every", "1", "--device", "cpu"),
)


@dataclass(frozen=True)
class Scene:
    """A command that will be killed, and what lies in its folder before.

    Parameters
    ----------
    arguments : tuple of str
    targets : tuple of str
        Names of the files that it writes.
    old : str
        The budget at which files of these names were written before, empty if there are none.
    given : tuple of str
        Names of files that the command reads, besides the model.
    again : tuple of str
        Arguments of the next run.
    """

    name: str
    arguments: tuple[str, ...]
    targets: tuple[str, ...]
    old: str = ""
    given: tuple[str, ...] = ()
    again: tuple[str, ...] = ("--force",)


_SOLVE = ("solve", MODEL, "--flops", "0.5", *_QUICK)
_APPLY = ("apply", MODEL, "given.plan.json")
SCENES = (
    Scene("solve", _SOLVE, (PRUNED, PLAN)),
    Scene("apply", _APPLY, (PRUNED,), given=("given.plan.json",)),
    Scene("solve --force", (*_SOLVE, "--force"), (PRUNED, PLAN), old="0.8", again=()),
    Scene("apply --force", (*_APPLY, "--force"), (PRUNED,), old="0.8", given=("given.plan.json",), again=()),
)
TRAIN = Scene("train", _TRAIN, ("net.trained.onnx", PRUNED, PLAN), given=("data.npz",), again=("--resume",))


class Stage:
    """Makes what scenes need, and runs them.

    Parameters
    ----------
    base : Path
        A folder of its own.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.wholes: dict[str, tuple[float, dict[str, str]]] = {}

    @cached_property
    def sources(self) -> Path:
        """Return a folder with the model, samples, and pairs of two budgets."""
        folder = self.base / "sources"
        folder.mkdir()
        sys.path.insert(0, str(TESTS / "support"))
        from pruning_cases import KINDS
        from training_cases import images

        onnx.save(KINDS["folded"](), folder / MODEL)
        np.savez(folder / "data.npz", image=images(96), labels=np.arange(96) % 4)
        for budget in ("0.5", "0.8"):
            paths = ("-o", f"{budget}.onnx", "--plan", f"{budget}.json")
            done = self.graphprune(folder, "solve", MODEL, "--flops", budget, *_QUICK, *paths)
            if done.code:
                raise RuntimeError(done.err)
        return folder

    def graphprune(self, folder: Path, *arguments: str, meanwhile: Callable[[int], None] | None = None) -> Run:
        """Run a command in a folder, with a folder beside it for temporary files."""
        scratch = folder.parent / f"{folder.name}.tmp"
        scratch.mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "graphprune", *arguments]
        return run(command, folder, {**os.environ, "TMPDIR": str(scratch)}, meanwhile=meanwhile)

    def set_up(self, scene: Scene, folder: Path) -> None:
        """Fill a folder for a scene."""
        folder.mkdir()
        shutil.copy(self.sources / MODEL, folder)
        for name in scene.given:
            shutil.copy(self.sources / {"given.plan.json": "0.5.json"}.get(name, name), folder / name)
        if scene.old:
            for target, suffix in zip(scene.targets, ("onnx", "json"), strict=False):
                shutil.copy(self.sources / f"{scene.old}.{suffix}", folder / target)

    def whole(self, scene: Scene) -> tuple[float, dict[str, str]]:
        """Return how long a scene takes when nobody kills it, and the digests of what it writes."""
        if scene.name not in self.wholes:
            folder = self.base / f"whole-{len(self.wholes)}"
            self.set_up(scene, folder)
            done = self.graphprune(folder, *scene.arguments)
            if done.code:
                raise RuntimeError(done.err)
            self.wholes[scene.name] = done.ending.seconds, {name: digest(folder / name) for name in scene.targets}
        return self.wholes[scene.name]


def digest(path: Path) -> str:
    """Return the digest of a file, empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def kill_commands(output: Path, seed: int, count: int) -> int:
    """Kill commands until there are so many kills; return after how many something was wrong."""
    journal = Journal(output, "kills", seed)
    with tempfile.TemporaryDirectory(prefix="attack-kills-") as base:
        stage = Stage(Path(base))
        for number in journal.open_cases(2 * count):  # some have ended before they are killed
            if sum(entry["killed"] for entry in journal.entries().values()) >= count:
                break
            scene = TRAIN if number % _EVERY_TRAIN == _EVERY_TRAIN - 1 else SCENES[number % len(SCENES)]
            folder = Path(base) / f"kill-{number}"
            entry = _kill(stage, scene, folder, random.Random(f"{seed}:{number}"))
            journal.add(str(number), scene=scene.name, **entry)
            if entry["wrong"]:
                print(f"kill {number} ({scene.name}): {entry['wrong']}", flush=True)
                shutil.copytree(folder, output / "failures" / folder.name, dirs_exist_ok=True)
            for path in (folder, folder.with_name(f"{folder.name}.tmp")):
                shutil.rmtree(path)
    return journal.failing()


def _kill(stage: Stage, scene: Scene, folder: Path, chance: random.Random) -> dict[str, Any]:
    seconds, new = stage.whole(scene)
    stage.set_up(scene, folder)
    before = {path.name: digest(path) for path in folder.iterdir()}
    kind = chance.choice(("any", "late", "writing"))
    moment = chance.uniform(0.0, 1.02) if kind == "any" else chance.uniform(0.75, 1.1)

    def kill(number: int) -> None:
        started = time.monotonic()
        if kind == "writing":
            _until_something_is_written(number, folder)
            time.sleep(chance.uniform(0.0, 0.01))
        else:
            time.sleep(max(0.0, moment * seconds - (time.monotonic() - started)))
        os.kill(number, signal.SIGKILL)

    done = stage.graphprune(folder, *scene.arguments, meanwhile=kill)
    after = {name: digest(folder / name) for name in scene.targets}
    mixed = _is_mixed(scene, before, after, new)
    wrong = _damage(scene, before, new, done, folder)
    if mixed and not wrong and not stage.graphprune(folder, "verify", MODEL, PRUNED, PLAN).code:
        wrong = "a model beside another's plan, and verify does not say so"
    wrong = wrong or _next_run(stage, scene, folder, new)
    wrong = wrong or _left_behind(folder.with_name(f"{folder.name}.tmp"))
    hidden = len(list(folder.glob(".graphprune-*")))
    state = "mixed" if mixed else "new" if after == new else "old"
    return {"moment": kind, "killed": done.code == -signal.SIGKILL, "state": state, "hidden": hidden, "wrong": wrong}


def _until_something_is_written(number: int, folder: Path) -> None:
    """Wait until a hidden file of the writer is there, or the process has ended."""
    while not any(entry.name.startswith(".graphprune-") for entry in os.scandir(folder)):
        time.sleep(0.0005)
        if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return


def _is_mixed(scene: Scene, before: dict[str, str], after: dict[str, str], new: dict[str, str]) -> bool:
    states = {"new" if after[name] == new[name] else "old" for name in scene.targets}
    changed = [after[name] != before.get(name, "") for name in scene.targets]
    return len(states) == 2 and any(changed) and {PRUNED, PLAN} <= {name for name, made in after.items() if made}


def _damage(scene: Scene, before: dict[str, str], new: dict[str, str], done: Run, folder: Path) -> str:
    """Return what a kill left that it must not, empty if nothing."""
    if done.survivors:
        return f"{len(done.survivors)} processes outlive it"
    for name in scene.targets:
        if digest(folder / name) not in (before.get(name, ""), new[name]):
            return f"{name} is neither old nor new"
    for name in (MODEL, *scene.given):
        if digest(folder / name) != before[name]:
            return f"the input {name} was changed"
    return ""


def _next_run(stage: Stage, scene: Scene, folder: Path, new: dict[str, str]) -> str:
    """Run the command again; return what is wrong with that, empty if nothing."""
    again = scene.again
    if scene is TRAIN and any((folder / name).exists() for name in scene.targets):
        again = ("--force",)
    elif scene is TRAIN and not list(folder.glob("*.checkpoint.*")):  # killed before the first: nothing to go on with
        again = ()
    done = stage.graphprune(folder, *scene.arguments, *again)
    if done.code:
        return f"the next run ends with {done.code}: {done.err}"
    for name in scene.targets:
        if digest(folder / name) != new[name]:
            return f"the next run makes another {name}"
    return ""


def _left_behind(scratch: Path) -> str:
    left = sorted(path.name for path in scratch.glob("*graphprune-*"))
    return f"left behind by both runs: {', '.join(left)}" if left else ""
