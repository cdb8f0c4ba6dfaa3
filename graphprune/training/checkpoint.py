# SPDX-License-Identifier: Apache-2.0
"""A checkpoint: everything that a run needs to go on, in one safetensors file that is replaced in one step.

What was saved is what a run has at a step; all randomness hangs on the number of the step. So a run that
was killed and resumed ends with the same weights as one that never was.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from graphprune.errors import InputError, UsageError, quote
from graphprune.model.atomic import PendingFile, output_errors

__all__ = ["Progress", "read_checkpoint", "write_checkpoint"]

SCHEMA = "graphprune.checkpoint/1"


@dataclass
class Progress:
    """How far a run is.

    Attributes
    ----------
    step : int
        Steps that are done.
    rate : float
        Its highest learning rate.
    start, best : float
        Held-out measure before the first step, and the lowest since (or at the start).
    best_step : int
        When that was.
    stopped : str
        Why the run ended early, if it did.
    scaler : dict of str to float
        State of the gradient scaler of float16 training.
    searched : dict of str to float
        Held-out measure that each candidate rate reached.
    """

    step: int
    rate: float
    start: float
    best: float
    best_step: int = 0
    stopped: str = ""
    scaler: dict[str, float] = field(default_factory=dict)
    searched: dict[str, float] = field(default_factory=dict)


def write_checkpoint(path: Path, run: str, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Replace the checkpoint.

    Parameters
    ----------
    path : Path
    run : str
        Digest of everything that the run depends on.
    progress : Progress
    tensors : dict of str to Tensor

    Raises
    ------
    OutputError
        If it cannot be written; then the earlier one is still there.
    """
    metadata = {"schema": SCHEMA, "run": run, "progress": json.dumps(asdict(progress))}
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata)
    with output_errors(path), PendingFile(path) as pending:
        pending.fill([data])
        pending.commit()


def read_checkpoint(path: Path, run: str) -> tuple[Progress, dict[str, Tensor]]:
    """Read a checkpoint of this very run.

    Raises
    ------
    InputError
        If the file is missing, unreadable, or no checkpoint.
    UsageError
        If it belongs to another run.
    """
    shown = quote(str(path))
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load(path.read_bytes())
        progress = Progress(**json.loads(metadata.get("progress", "null") or "null"))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"the checkpoint {shown} cannot be read: {quote(str(error))}") from error
    if metadata.get("schema") != SCHEMA:
        raise InputError(f"{shown} is no checkpoint of this version of graphprune")
    if metadata.get("run") != run:
        raise UsageError(
            f"the checkpoint {shown} belongs to a run with other models, data or options",
            hint="give the options that it was started with, or start anew with --force",
        )
    return progress, tensors
