# SPDX-License-Identifier: Apache-2.0
"""The device: where networks run on samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from graphprune.choices import Device

if TYPE_CHECKING:
    from graphprune.cli.console import Talk

__all__ = ["RunningDevice", "VerifyDevice", "run_on", "verify_on"]


@dataclass(frozen=True, kw_only=True)
class RunningDevice:
    """Where networks run on samples; what verification runs on is said apart."""

    panel: ClassVar[str] = "Samples"

    device: Annotated[
        Device,
        typer.Option(
            envvar="GRAPHPRUNE_DEVICE",
            help="Where networks run on samples and for timing. auto: on the graphics processor if it is there and "
            "works.",
            case_sensitive=False,
        ),
    ] = "auto"

    def select(self, talk: Talk) -> None:
        """Let everything run there until the command ends.

        Raises
        ------
        UsageError
            If it is asked for and does not work.
        """
        run_on(self.device, talk)


VerifyDevice = Annotated[
    Device,
    typer.Option(
        envvar="GRAPHPRUNE_VERIFY_DEVICE",
        help="Where verification runs both models. What it allows as rounding is known best of the processor.",
        case_sensitive=False,
        rich_help_panel="Output",
    ),
]


def verify_on(device: Device, talk: Talk) -> None:
    """Let verification run on a device until the command ends; say which it is to those who ask.

    Raises
    ------
    UsageError
        If it is asked for and does not work.
    """
    from graphprune.data import providers

    providers.use_for_verification(device)
    if device == "cuda" or talk.verbose:
        chosen = providers.verifying()
        talk.detail(f"device of verification: {chosen.name} ({chosen.why})")


def run_on(device: Device, talk: Talk) -> None:
    """Let networks run on a device until the command ends; say which it is to those who ask."""
    from graphprune.data import providers

    providers.use(device)
    if device == "cuda" or talk.verbose:  # else nothing is tried before a network runs
        chosen = providers.current()
        talk.detail(f"device: {chosen.name} ({chosen.why})")
