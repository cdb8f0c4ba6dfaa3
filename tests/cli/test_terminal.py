# SPDX-License-Identifier: Apache-2.0
"""What a terminal shows: tables as they are stored for three widths, colours or none, and what a shell completes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import tiny_models

from graphprune.report.text import distinct

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Outcome

    Command = Callable[..., Outcome]

SNAPSHOTS = Path(__file__).parent / "snapshots"
REWRITE = "GRAPHPRUNE_REWRITE_SNAPSHOTS"
"""Set it to write what is shown now."""
LONG = "/model/features/features.{at}/block/block.{at}/pointwise/convolution/Conv"
LAYERS = 5


@pytest.fixture
def long_names(tmp_path: Path) -> Path:
    """Return a chain of layers whose names differ in the middle."""
    names = [f"h{at}" for at in range(LAYERS)]
    text = "".join(f"h{at + 1} = Conv({name}, w{at}) " for at, name in enumerate(names))
    proto = tiny_models.model(
        f"(float[n,3,6,6] h0) => (float[n,4,6,6] h{LAYERS}) {{ {text}}}",
        {f"w{at}": (4 if at == LAYERS - 1 else 16, 3 if at == 0 else 16, 1, 1) for at in range(LAYERS)},
    )
    for at, node in enumerate(proto.graph.node):
        node.name = LONG.format(at=at)
    path = tmp_path / "long.onnx"
    onnx.save(proto, path)
    return path


def on_terminal(columns: int, *arguments: object, cwd: Path, **environment: str) -> str:
    """Run a command on a terminal of so many columns, and return what it shows."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "graphprune", *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.DEVNULL,
        cwd=cwd,
        env={**clean, "TERM": "xterm-256color", **environment},
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the other end was closed
        pass
    os.close(master)
    assert process.wait(60) == 0, shown.decode()
    return shown.decode().replace("\r\n", "\n")


COMMANDS = {
    "inspect": ("inspect", "long.onnx"),
    "solve": ("solve", "long.onnx", "--flops", "0.5", "--round-to", "1", "--quick", "--dry-run"),
}


@pytest.mark.parametrize("columns", [80, 120, 160])
@pytest.mark.parametrize("command", COMMANDS)
def test_tables_fit_the_terminal_and_look_as_they_did(command: str, columns: int, long_names: Path) -> None:
    shown = on_terminal(columns, *COMMANDS[command], cwd=long_names.parent, NO_COLOR="1")
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    stable = re.sub(r"sha256 [0-9a-f]+|\d\.\de[-+]\d\d|\d+(\.\d+)? k?B|by \d+ %", "...", shown)
    stored = SNAPSHOTS / f"{command}_{columns}.txt"
    if REWRITE in os.environ:
        stored.write_text(stable, encoding="utf-8")
    assert stable == stored.read_text(encoding="utf-8")


def test_rows_stay_distinct_on_a_narrow_terminal(long_names: Path) -> None:
    shown = on_terminal(80, *COMMANDS["solve"], cwd=long_names.parent, NO_COLOR="1")
    names = [line.split()[0] for line in shown.splitlines() if "  Conv  " in line]
    assert len(names) == LAYERS
    assert len({*names}) == LAYERS


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_figures_are_whole_or_left_out(columns: int, long_names: Path) -> None:
    command = ("compare", "long.onnx", "--flops", "0.5", "--solver", "bisection,uniform", "--quick")
    shown = on_terminal(columns, *command, cwd=long_names.parent, NO_COLOR="1")
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    head = next(line for line in shown.splitlines() if line.startswith(" solver "))
    gone = shown.partition("left out, for want of room: ")[2].partition(";")[0].split(", ")
    assert ("seconds" in gone) == (columns < 120)
    assert all((name in head) != (name in gone) for name in ("params", "kept saliency", "gap", "seconds"))


def test_colours_are_for_terminals_that_want_them(long_names: Path) -> None:
    assert "\x1b[1m" in on_terminal(100, *COMMANDS["inspect"], cwd=long_names.parent)
    assert "\x1b" not in on_terminal(100, *COMMANDS["inspect"], cwd=long_names.parent, NO_COLOR="1")


@pytest.mark.parametrize("width", [8, 12, 20, 30])
@pytest.mark.parametrize(
    "names",
    [
        [LONG.format(at=at) for at in range(30)],
        [f"{'x' * 40}{at}{'y' * 40}" for at in range(12)],
        [f"{at}{'same' * 20}" for at in range(12)],
        [f"{'same' * 20}{at}" for at in range(12)],
        [f"{'a' * at}{'b' * (40 - at)}" for at in range(9)],
    ],
    ids=["path", "middle", "front", "end", "runs"],
)
def test_names_are_told_apart_at_every_width(names: list[str], width: int) -> None:
    shown = distinct(names, width)
    assert len({*shown.values()}) == len(names)
    assert all(len(short) <= width for short in shown.values())


def test_short_names_stay_as_they_are() -> None:
    assert distinct(["conv1", "conv2", "conv1"], 8) == {"conv1": "conv1", "conv2": "conv2"}
    assert distinct(["a\x1b[31m"], 20) == {"a\x1b[31m": "a\\x1b[31m"}


def completed(line: str, cwd: Path) -> list[str]:
    """Return what bash is told at the end of a line."""
    words = line.split(" ")
    environment = {"_GRAPHPRUNE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "graphprune"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("graphprune so", ["solve"]),
        ("graphprune solve --lat", ["--latency"]),
        ("graphprune solve long.onnx --solver bis", ["bisection"]),
        ("graphprune compare long.onnx --solver bisection,unif", ["bisection,uniform"]),
        ("graphprune solve long.onnx --solver au", ["auto"]),
        ("graphprune solve long.onnx --round-to av", ["avx512", "avx2"]),
        ("graphprune train long.onnx --method sli", ["slimming"]),
        ("graphprune deploy long.onnx --check mnn,openv", ["mnn,openvino"]),
        ("graphprune solve long.onnx --criterion fp", ["fpgm"]),
        ("graphprune solve long.onnx --inherit m", ["merge"]),
        ("graphprune inspect long.onnx --why g00", [f"g00{at}" for at in range(LAYERS - 1)]),
        ("graphprune solve long.onnx --skip /model/features/features.3", [LONG.format(at=3)]),
        ("graphprune solve none.onnx --skip /model", []),
    ],
)
def test_a_shell_completes_names(line: str, found: list[str], long_names: Path) -> None:
    assert completed(line, long_names.parent) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(shell: str, quick: Command) -> None:
    assert "--install-completion" in quick("--help").out
    done = quick("--show-completion", shell)
    assert done.code == 0, done.err
    assert "_GRAPHPRUNE_COMPLETE" in done.out
    assert done.err == ""


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("sovle",), "solve"),
        (("solve", "long.onnx", "--flopps", "0.5"), "--flops"),
        (("solve", "long.onnx", "--flops", "0.5", "--solver", "bisecton"), "bisection"),
        (("solve", "long.onnx", "--flops", "0.5", "--quick", "--criterion", "fpmg"), "fpgm"),
        (("solve", "long.onnx", "--flops", "0.5", "--inherit", "merg"), "merge"),
        (("solve", "long.onnx", "--flops", "0.5", "--skip", "g0001"), "g001"),
        (("inspect", "long.onnx", "--why", "g0002"), "g002"),
        (("inspect", "long.onnx", "--why", "w12"), "w1"),
        (("solve", "lnog.onnx", "--flops", "0.5"), "'long.onnx'"),
        (("eval", "long.onnx", "--data", "potos"), "'photos'"),
        (("eval", "long.onnx", "--data", "smples.npz"), "'samples.npz'"),
        (("apply", "long.onnx", "kpt.plan.json"), "'kept.plan.json'"),
        (("check", "kpt.plan.json"), "'kept.plan.json'"),
        (("export", "torchvision:resnet81", "-o", "x.onnx"), "torchvision:resnet18"),
        (("eval", "long.onnx", "--data", "torchvision:CIFAR01"), "torchvision:CIFAR10"),
    ],
)
def test_what_was_meant_is_said(arguments: tuple[str, ...], meant: str, quick: Command, long_names: Path) -> None:
    (long_names.parent / "photos").mkdir()
    for name in ("samples.npz", "kept.plan.json"):
        (long_names.parent / name).touch()
    done = quick(*arguments)
    assert done.code == 2
    error, hint = done.err.splitlines()[-2:]  # in front of them what took long, such as importing torch
    assert (error[:7], hint[:6]) == ("error: ", "hint: ")
    assert re.search(rf"(?<![\w-]){re.escape(meant)}(?![\w-])", error + hint)


def test_a_budget_above_the_model_says_that_nothing_had_to_be_done(quick: Command, long_names: Path) -> None:
    done = quick("solve", long_names, "--flops", "300M", "--quick")
    assert done.code == 0, done.err
    assert "nothing had to be done: the model has " in done.out
    assert "300 M were allowed" in done.out
    assert "nothing had to be done" not in quick("solve", long_names, "--flops", "0.5", "--quick", "-f").out


def test_shares_of_what_is_frozen_agree_with_what_is_prunable(quick: Command, long_names: Path) -> None:
    """The last layer keeps its outputs and can lose inputs: it is touched, and nothing of it is held."""
    shown = quick("inspect", long_names).out
    (row,) = [line for line in shown.splitlines() if line.startswith(" graph output")]
    assert re.split(r"  +", row.strip())[:4][1] == "1"
    assert re.split(r"  +", row.strip())[3] == "0.0 %"
    assert "prunable  100.0 % of the FLOPs" in shown
    for word in ("touched:", "held:", "width:", "members:", "FLOPs:"):
        assert word in shown
