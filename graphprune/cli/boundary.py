# SPDX-License-Identifier: Apache-2.0
"""The error boundary: whatever happens inside a command becomes two lines on stderr and an exit code."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import threading
import traceback
from contextlib import contextmanager, nullcontext, redirect_stdout
from contextvars import copy_context
from typing import TYPE_CHECKING, NoReturn, TextIO

import typer

from graphprune.cli.command_line_error import CommandLineError
from graphprune.cli.live import detach
from graphprune.cli.typed import keep_typed
from graphprune.errors import GraphPruneError, did_you_mean, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

__all__ = ["run"]

_USAGE = 2
_INTERNAL = 101
_INTERRUPTED = 130
_PIPE_CLOSED = 141
_TERMINATED = 143
_NO_CHOICE = re.compile(r"'(?P<given>[^']*)' is not one of (?P<known>.+)")
_SHELL_OPTIONS = {"--install-completion", "--show-completion"}
"""They end in ``sys.exit(0)``, too."""
_JSON = "--json"
_COMPLETION = "_GRAPHPRUNE_COMPLETE"
"""Set while a shell asks for completions, which end in ``sys.exit(0)`` themselves."""


class _TerminatedError(BaseException):
    """SIGTERM arrived; a BaseException so that nothing but ``finally`` reacts to it."""


_ENDINGS: tuple[tuple[type[BaseException], str, int], ...] = (
    (KeyboardInterrupt, "interrupted", _INTERRUPTED),
    (typer.Abort, "interrupted", _INTERRUPTED),
    (_TerminatedError, "terminated", _TERMINATED),
    (MemoryError, "out of memory; nothing was written", _USAGE),
)


def run(argv: Sequence[str] | None) -> int:
    """Run the command line and translate every way it can end into an exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    _prepare_streams()
    printed = io.StringIO() if _JSON in arguments else None  # held back: an error becomes a part of the same object
    try:
        with _sigterm_raises(), redirect_stdout(printed) if printed is not None else nullcontext():
            code = copy_context().run(_invoke, arguments)  # what a command chooses for itself ends with it
        if printed is not None:
            sys.stdout.write(printed.getvalue())
        sys.stdout.flush()
    except BaseException as error:
        detach()  # before anything is written where a line is shown
        code, told = _report(error, arguments, debug=debug)
        if printed is not None and told:
            code = _print_object(printed.getvalue(), told, code)
    finally:
        detach()
    return code


def _invoke(arguments: list[str]) -> int:
    from graphprune.cli.app import app

    keep_typed(arguments)
    command = typer.main.get_command(app)
    try:
        if not arguments and _COMPLETION not in os.environ:
            with redirect_stdout(sys.stderr):
                command.main(["--help"], prog_name="graphprune", standalone_mode=False)
            return _USAGE
        result = command.main(arguments, prog_name="graphprune", standalone_mode=False)
    except SystemExit as exit_:
        # typer turns a closed pipe into SystemExit(1) and swallows later output
        if isinstance(exit_.__context__, OSError):
            raise exit_.__context__ from None
        if not exit_.code and (_COMPLETION in os.environ or _SHELL_OPTIONS & {*arguments}):
            return 0
        raise
    if result == _INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _report(error: BaseException, arguments: Sequence[str], *, debug: bool) -> tuple[int, dict[str, str | None]]:
    """Write what went wrong to stderr; return the exit code, and the same for machines: empty if nobody listens."""
    from graphprune.extras import import_failure

    error = import_failure(error) or error
    if isinstance(error, BrokenPipeError):
        _discard_stdout()
        return _PIPE_CLOSED, {}
    if debug and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    code, message, hint = _ending(error, arguments)
    if message:
        _say(message, hint)
    return code, {"type": _public_type(error), "message": message, "hint": hint}


def _ending(error: BaseException, arguments: Sequence[str]) -> tuple[int, str, str | None]:
    """Return exit code, message and hint for whatever ended a command."""
    if isinstance(error, GraphPruneError):
        return error.exit_code, error.message, error.hint
    if isinstance(error, CommandLineError):
        message = getattr(error, "format_message", error.__str__)().replace("Value error, ", "")
        message, *_ = message.partition(" (Possible options")  # all that are alike in some way, --help among them
        return _USAGE, message, _option_hint(error) or _choice_hint(message) or _help_hint(error, arguments)
    if isinstance(error, SystemExit):
        if error.code:
            return error.code if isinstance(error.code, int) else _USAGE, "", None
        return _USAGE, "code that was called ended the program (sys.exit); the command is not done", None
    for kind, message, code in _ENDINGS:
        if isinstance(error, kind):
            return code, message, None
    if isinstance(error, OSError):
        where = f"{quote(str(error.filename))}: " if error.filename else ""
        return _USAGE, f"{where}{error.strerror or error}", None
    if not isinstance(error, Exception):  # nothing of graphprune raises such a thing, and whoever catches lets it pass
        said = f"{type(error).__name__}: {quote(str(error))[1:-1]}".removesuffix(": ")
        return _USAGE, f"code that was called ended the program ({said}); the command is not done", None
    return (
        _INTERNAL,
        f"internal error: {type(error).__name__}: {quote(str(error))[1:-1]}",
        "this is a fault of graphprune; run again with --debug and report what it prints",
    )


def _public_type(error: BaseException) -> str:
    """Return the class of an error as Python has it; those of the command line's own library are wrong usage."""
    return "UsageError" if isinstance(error, CommandLineError) else type(error).__name__


def _print_object(printed: str, told: dict[str, str | None], code: int) -> int:
    """Print one JSON object with the error in it, beside what the command had to say; return the exit code."""
    try:
        known = json.loads(printed) if printed.strip() else {}
        told_with_code = {**told, "exit_code": code}
        sys.stdout.write(json.dumps({**known, "error": told_with_code}, indent=2) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
        return _PIPE_CLOSED
    return code


def _say(message: str, hint: str | None) -> None:
    lines = [f"error: {_one_line(message)}"]
    if hint:
        lines.append(f"hint: {_one_line(hint)}")
    print(*lines, sep="\n", file=sys.stderr)


def _one_line(text: str) -> str:
    """Return the text with line breaks and control characters made harmless."""
    return "".join(c if c.isprintable() else " " if c.isspace() else repr(c)[1:-1] for c in text).strip()


def _choice_hint(message: str) -> str | None:
    """Return what was meant, where a value is none of a few."""
    found = _NO_CHOICE.search(message)
    return did_you_mean(found["given"], re.findall(r"'([^']*)'", found["known"])) if found else None


def _option_hint(error: BaseException) -> str | None:
    """Return which option was meant, where there is none of the name."""
    name, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if name is None or context is None or not hasattr(error, "possibilities"):
        return None
    known = [option for parameter in context.command.get_params(context) for option in parameter.opts]
    return did_you_mean(name.lstrip("-"), [option[2:] for option in known if option[:2] == "--"], shown="--{}".format)


def _help_hint(error: BaseException, arguments: Sequence[str]) -> str:
    """Return where the command's help is; errors of an option without its value do not know their command."""
    context = getattr(error, "ctx", None)
    typed = " ".join(("graphprune", *(word for word in arguments[:1] if word.isalpha())))
    command = getattr(context, "command_path", typed)
    return f"see `{command} --help`"


def _prepare_streams() -> None:
    """Make printing safe where a stream is closed or cannot show every character."""
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - lives as long as we do
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    """Point stdout nowhere, so that the interpreter's last flush does not fail on the closed pipe."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - lives as long as we do


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _raise_terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError
