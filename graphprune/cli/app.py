# SPDX-License-Identifier: Apache-2.0
"""The list of commands, and what is common to all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from graphprune import __version__
from graphprune.cli.commands.apply import apply
from graphprune.cli.commands.check import check
from graphprune.cli.commands.compare import compare
from graphprune.cli.commands.deploy import deploy
from graphprune.cli.commands.doctor import doctor
from graphprune.cli.commands.evaluate import evaluate
from graphprune.cli.commands.export import export
from graphprune.cli.commands.finetune import finetune
from graphprune.cli.commands.init import init
from graphprune.cli.commands.inspect import inspect
from graphprune.cli.commands.normalize import normalize
from graphprune.cli.commands.quantize import quantize
from graphprune.cli.commands.recover import recover
from graphprune.cli.commands.report import report
from graphprune.cli.commands.run import run
from graphprune.cli.commands.solve import solve
from graphprune.cli.commands.sweep import sweep
from graphprune.cli.commands.synthesize import synthesize
from graphprune.cli.commands.train import train
from graphprune.cli.commands.verify import verify
from graphprune.cli.commands.widen import widen
from graphprune.cli.help_panels import PanelCommand, PanelGroup, epilog

__all__ = ["app"]

app = typer.Typer(
    name="graphprune",
    cls=PanelGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_TASKS = {
    "Prune": {"solve": solve, "apply": apply, "compare": compare, "sweep": sweep, "run": run},
    "Look": {"inspect": inspect, "report": report, "verify": verify, "check": check},
    "Accuracy": {"eval": evaluate, "recover": recover},
    "Train": {"train": train, "finetune": finetune},
    "Deploy": {"quantize": quantize, "deploy": deploy},
    "Files": {"init": init, "export": export, "normalize": normalize, "synthesize": synthesize, "widen": widen},
    "Help": {"doctor": doctor},
}
for task, commands in _TASKS.items():
    for name, command in commands.items():
        app.command(name, cls=PanelCommand, rich_help_panel=task, epilog=epilog(command))(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"graphprune {__version__}")
        raise typer.Exit


@app.callback(epilog="Exit codes: 0 done, 1 request cannot be met, 2 wrong usage or input, 101 failed verification.")
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print a traceback with every error.")] = False,
) -> None:
    """Remove whole channels from a trained ONNX network; get a smaller dense ONNX file."""
    del version, debug  # the boundary looks for --debug before anything is parsed
