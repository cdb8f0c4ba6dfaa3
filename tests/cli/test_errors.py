# SPDX-License-Identifier: Apache-2.0
"""Every way a command can end badly: one or two lines on stderr, an exit code, nothing written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from graphprune import cli
from graphprune.cli import boundary
from graphprune.errors import BudgetUnreachableError, GraphPruneError, NotImprovedError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Outcome

COMMANDS = ["solve", "inspect", "apply", "verify", "normalize"]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.mark.parametrize(
    "share", ["0", "-0.5", "1.5", "nan", "inf", "1e-400", "50%", "0,5", "", "half", "0x1", "1_0", "\u0661"]
)
@pytest.mark.parametrize("option", ["--flops", "--params"])
def test_a_budget_that_is_no_share_is_refused(
    tmp_path: Path, share: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["solve", str(tmp_path / "model.onnx"), f"{option}={share}"]) == 2
    error, hint = lines(capsys)
    assert error.startswith(f"error: {option} cannot be '")
    assert hint.startswith("hint: give the share to keep, a number with 0 < share <= 1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no budget is given"),
        (["--flops", "300MB"], "the budget for flops is '300MB'"),
        (["--flops", "0.5", "--set", "exponent"], "--set cannot be 'exponent'"),
        (["--flops", "0.5", "--round-to", "0"], "--round-to cannot be '0'"),
        (["--flops", "0.5", "--round-to", "8.5"], "--round-to cannot be '8.5'"),
        (["--flops", "0.5", "--input-shape", "x"], "--input-shape cannot be 'x'"),
        (["--flops", "0.5", "--input-shape", "x=1x0x3"], "has a size of 0"),
        (["--flops", "0.5", "--input-shape", "x=1", "--input-shape", "x=2"], "gives 'x' twice"),
        (["--flops", "0.5", "--input-shape", "x=1x-3"], "--input-shape cannot be"),
        (["--flops", "0.5", "--min-keep", "0"], "--min-keep"),
        (["--flops", "0.5", "--surprise"], "No such option"),
        (["--flops", "0.5"], "missing.onnx"),
    ],
)
def test_an_unusable_option_is_refused(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["solve", str(tmp_path / "missing.onnx"), *arguments]) == 2
    found = lines(capsys)
    assert len(found) <= 2
    assert message in found[0]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("solve", "net.plan.json", "--flops", "0.5"), "'net.plan.json' is a plan, where a model is wanted"),
        (("eval", "net.plan.json", "--data", "x.npz"), "'net.plan.json' is a plan, where a model is wanted"),
        (("apply", "net.onnx", "net.onnx"), "a plan is a .json file"),
    ],
)
def test_files_that_changed_places_are_told_apart(
    command: tuple[str, ...], message: str, quick: Callable[..., Outcome], model: Path
) -> None:
    model.with_name("net.plan.json").write_text("{}")
    done = quick(*command)
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize("amount", ["--size=9KB", "--size=9kb", "--flops=2m", "--params=5K", "--memory=1mb"])
def test_units_may_be_written_in_capitals_and_small_letters(
    amount: str, quick: Callable[..., Outcome], model: Path
) -> None:
    done = quick("solve", model, amount, "--quick", "--dry-run")
    assert done.code in (0, 1), done.err
    assert "the budget for" not in done.err


@pytest.mark.parametrize(("command", "option"), [("solve", "--flops"), ("report", "--model"), ("eval", "--data")])
def test_an_option_without_its_value_is_explained_by_the_help_of_its_command(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "net.onnx", option]) == 2
    assert lines(capsys)[-1] == f"hint: see `graphprune {command} --help`"


@pytest.mark.parametrize("command", ["solve", "compare", "sweep"])
def test_threads_are_refused_where_no_latency_is_limited(
    command: str, quick: Callable[..., Outcome], model: Path
) -> None:
    done = quick(command, model, "--flops", "0.5", "--quick", "--threads", "4")
    assert done.code == 2
    assert done.err.splitlines()[0] == "error: --threads is for a latency, and none is limited"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_argument_is_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command]) == 2
    error, hint = lines(capsys)
    assert error.startswith("error: Missing argument")
    assert hint == f"hint: see `graphprune {command} --help`"


@pytest.mark.parametrize("arguments", [[], ["--debug"]])
def test_no_command_prints_the_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    found = lines(capsys)
    assert found[0].startswith("Usage: graphprune")
    assert any(line.split()[:1] == ["solve"] for line in found)
    assert not any(line.startswith("error:") for line in found)


@pytest.mark.parametrize("model", [".", "", "/"])
@pytest.mark.parametrize("command", [["solve", "--flops", ".5"], ["apply", "net.plan.json"], ["normalize"]])
def test_a_folder_is_no_model(command: list[str], model: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = command
    assert cli.main([name, model, *rest]) == 2
    error, hint = lines(capsys)
    assert error.endswith(" is a folder")
    assert hint == "hint: give the .onnx file inside it"


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sovle"]) == 2
    assert "sovle" in lines(capsys)[0]


@pytest.mark.parametrize(
    ("error", "code", "first"),
    [
        (BudgetUnreachableError("too low", hint="ask for more"), 1, "error: too low"),
        (VerificationError("differs"), 101, "error: differs"),
        (GraphPruneError("a\nb\x1b[31m"), 101, "error: a b\\x1b[31m"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (MemoryError(), 2, "error: out of memory; nothing was written"),
        (OSError(28, "No space left on device", "x"), 2, "error: 'x': No space left on device"),
        (ZeroDivisionError("division\nby zero"), 101, "error: internal error: ZeroDivisionError: division\\nby zero"),
        (SystemExit(3), 3, None),
        (SystemExit(0), 2, "error: code that was called ended the program (sys.exit); the command is not done"),
        (GeneratorExit(), 2, "error: code that was called ended the program (GeneratorExit); the command is not done"),
        (
            type("Panic", (BaseException,), {})("in\nRust"),
            2,
            "error: code that was called ended the program (Panic: in\\nRust); the command is not done",
        ),
    ],
)
def test_every_exception_becomes_lines_and_a_code(
    error: BaseException,
    code: int,
    first: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(boundary, "_invoke", fail)
    assert cli.main(["solve"]) == code
    found = lines(capsys)
    assert len(found) <= 2
    assert (found[0] if found else None) == first
    assert cli.main(["solve", "--debug"]) == code
    assert ("Traceback" in capsys.readouterr().err) == (not isinstance(error, SystemExit))


def test_sigterm_unwinds_the_stack(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def work(_arguments: list[str]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(boundary, "_invoke", work)
    assert cli.main([]) == 143
    assert cleaned
    assert lines(capsys) == ["error: terminated"]
    assert signal.getsignal(signal.SIGTERM) is before


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphprune", *arguments]
    return subprocess.run(command, text=True, check=False, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from graphprune.cli import main
sys.exit(main(["inspect", "none.onnx"]))
"""


@pytest.mark.parametrize("name", ["typer", "graphprune.cli.boundary", "graphprune.cli.app", "onnx"])
def test_ctrl_c_while_modules_are_imported_is_one_line(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", INTERRUPTED, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines(), done.stdout) == (130, ["error: interrupted"], "")


def test_ctrl_c_while_an_error_is_said_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(boundary, "_say", interrupted)
    assert cli.main(["inspect", "none.onnx"]) == 130
    assert lines(capsys) == ["error: interrupted"]


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_reported() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("--help", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_help_needs_no_terminal_and_no_locale(locale: str) -> None:
    done = run(
        *("solve", "--help"),
        env={**os.environ, "LC_ALL": locale, "NO_COLOR": "1", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0
    assert "--flops" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "said"),
    [
        (["solve", "missing.onnx", "--flops", "0.5"], 2, "ModelFileError", "missing.onnx"),
        (["solve", "missing.onnx"], 2, "UsageError", "no budget is given"),
        (["solve", "missing.onnx", "--surprise"], 2, "UsageError", "--surprise"),
        (["sovle"], 2, "UsageError", "sovle"),
        (["inspect", "none.plan.json"], 2, "PlanError", "none.plan.json"),
    ],
)
def test_for_machines_an_error_is_one_json_object(
    arguments: list[str],
    code: int,
    kind: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--json"]) == code
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert (error["type"], error["exit_code"]) == (kind, code)
    assert said in error["message"]
    assert captured.err.startswith(f"error: {error['message']}")


def test_an_error_joins_what_a_command_has_printed_already(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half(_arguments: list[str]) -> int:
        print('{"command": "recover", "improved": false}')
        raise NotImprovedError("no gain", hint="try more")

    monkeypatch.setattr(boundary, "_invoke", half)
    assert cli.main(["recover", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "command": "recover",
        "improved": False,
        "error": {"type": "NotImprovedError", "message": "no gain", "hint": "try more", "exit_code": 1},
    }


def test_a_closed_pipe_is_quiet_for_machines_too() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("inspect", "missing.onnx", "--json", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
