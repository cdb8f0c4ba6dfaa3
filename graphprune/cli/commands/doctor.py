# SPDX-License-Identifier: Apache-2.0
"""`graphprune doctor`: what is installed, what is missing, where networks run."""

from __future__ import annotations

from typing import Annotated

import typer

from graphprune.cli.console import print_json, print_tables
from graphprune.cli.help_panels import examples

__all__ = ["doctor"]


@examples("graphprune doctor", "graphprune doctor --json")
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Look at the installation: packages, extras, devices.

    Says what is missing and the command that gets it. Exit code 1 if something has to be mended; an extra that is not
    installed is nothing to mend.
    """
    from dataclasses import asdict

    from graphprune.installation import examine_installation
    from graphprune.report.tables import grid

    findings = examine_installation()
    wrong = [finding for finding in findings if finding.state == "wrong"]
    if as_json:
        print_json({"command": "doctor", "ok": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        advised = [finding for finding in findings if finding.advice]
        print_tables(grid((finding.part, finding.name, finding.found) for finding in findings))
        if advised:
            typer.echo()
            print_tables(grid((_LABELS[finding.state], finding.name, finding.advice) for finding in advised))
        typer.echo(f"\n{_verdict(len(wrong))}")
    if wrong:
        raise typer.Exit(1)


_LABELS = {"missing": "to add", "wrong": "to mend", "ok": "note"}


def _verdict(wrong: int) -> str:
    if not wrong:
        return "ok       pruning, verification and recovery work here"
    return f"{wrong} to mend, as said above"
