# SPDX-License-Identifier: Apache-2.0
"""A checkpoint: everything that a run needs to go on, in one safetensors file that is replaced in one step.

What was saved is what a run has at a step; all randomness hangs on the number of the step. So a run that
was killed and resumed ends with the same weights as one that never was.

A file that somebody damaged is refused with one error that names it: its size and the names, kinds and shapes of
all that it holds are looked at before anything is taken from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import safetensors
from safetensors.torch import load, save
from torch import Tensor

from graphprune.errors import GraphPruneError, InputError, UsageError, quote
from graphprune.model.files.atomic import PendingFile, output_errors
from graphprune.regular_file import check_regular

__all__ = ["Progress", "below", "checkpoint_errors", "read_checkpoint", "take", "take_all", "write_checkpoint"]

SCHEMA = "graphprune.checkpoint/2"
_LARGEST_HEADER = 16 << 20
"""Bytes: the names and shapes of more than 100,000 tensors."""
_LARGEST_COUNT = 1 << 53


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


def write_checkpoint(path: Path, run: str, progress: Progress, tensors: dict[str, Tensor], *, blocks: int = 0) -> None:
    """Replace the checkpoint.

    Parameters
    ----------
    path : Path
    run : str
        Digest of everything that the run depends on.
    progress : Progress
    tensors : dict of str to Tensor
    blocks : int
        How many blocks of the original are learned by what a plan says.

    Raises
    ------
    OutputError
        If it cannot be written; then the earlier one is still there.
    """
    metadata = {
        "schema": SCHEMA,
        "run": run,
        "progress": json.dumps(asdict(progress)),
        "tensors": _digest_of_names(tensors),
        "blocks": str(blocks),
    }
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata)
    with output_errors(path), PendingFile(path) as pending:
        pending.fill([data])
        pending.commit()


def read_checkpoint(path: Path, run: str, *, blocks: int = 0) -> tuple[Progress, dict[str, Tensor]]:
    """Read a checkpoint of this very run.

    Parameters
    ----------
    path : Path
    run : str
        Digest of everything that the run depends on.
    blocks : int
        How many blocks of the original this run would learn.

    Raises
    ------
    InputError
        If the file is missing, unreadable, damaged, or no checkpoint.
    UsageError
        If it belongs to another run.
    """
    shown = quote(str(path))
    with checkpoint_errors(path):
        _check_header(path)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    if metadata.get("schema") != SCHEMA:
        raise InputError(f"{shown} is no checkpoint of this version of graphprune")
    if metadata.get("run") != run:
        raise _of_another_run(shown, metadata.get("blocks", "0"), blocks)
    with checkpoint_errors(path):
        progress = _progress(metadata.get("progress", ""))
        tensors = load(path.read_bytes())
        if metadata.get("tensors") != _digest_of_names(tensors):
            raise InputError("it has other tensors than were saved")
    return progress, tensors


@contextmanager
def checkpoint_errors(path: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint raises, while it is read or taken up, into one error that names the file."""
    shown = quote(str(path))
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except OSError as error:
        raise InputError(f"the checkpoint {shown} cannot be read: {error.strerror or quote(str(error))}") from error
    except GraphPruneError as error:
        raise InputError(f"the checkpoint {shown} is damaged: {error.message}", hint=_ANEW) from error
    except Exception as error:  # readers, torch and methods raise whatever they like
        said = f"{type(error).__name__}: {quote(str(error))}"
        raise InputError(f"the checkpoint {shown} is damaged: {said}", hint=_ANEW) from error


_ANEW = "start anew with --force"


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def take(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """Return a tensor of a checkpoint that has the shape and the type of another.

    Raises
    ------
    InputError
        If there is none of this name, it has another shape or type, or holds values that are no numbers.
    """
    value = tensors.get(name)
    if value is None:
        raise InputError(f"it lacks the tensor {quote(name)}")
    if value.shape != like.shape or value.dtype != like.dtype:
        raise InputError(
            f"the tensor {quote(name)} is {value.dtype} of shape {quote(list(value.shape))}, but must be {like.dtype} "
            f"of shape {list(like.shape)}"
        )
    if value.is_floating_point() and bool(like.isfinite().all()) and not bool(value.isfinite().all()):
        raise InputError(f"the tensor {quote(name)} holds values that are no numbers")
    return value


def take_all(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `take` does for every name in `like`."""
    return {name: take(tensors, name, value) for name, value in like.items()}


def _check_header(path: Path) -> None:
    """Refuse a file whose list of contents alone would fill the memory, and what is no file."""
    check_regular(path, InputError)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _LARGEST_HEADER:
        raise InputError(f"its header is {size:,} bytes long, and {_LARGEST_HEADER:,} are allowed")


def _of_another_run(shown: str, learned: str, blocks: int) -> UsageError:
    """Return the error of a checkpoint that this run cannot go on from; say so where it is a plan that came or went."""
    if learned != "0" and not blocks:
        return UsageError(
            f"the run of the checkpoint {shown} learned {learned} blocks of the original, by the plan beside the "
            "pruned model; this one would learn none, for it has no original to learn from, or no plan that can be "
            "read lies there now",
            hint="give the same --teacher, and put the plan back (net.plan.json beside net.pruned.onnx), or start anew "
            "with --force",
        )
    if learned == "0" and blocks:
        return UsageError(
            f"the run of the checkpoint {shown} learned no blocks of the original; this one would learn {blocks}, by "
            "the plan that lies beside the pruned model now, or because it has an original to learn from",
            hint="give the options that it was started with, move the plan away if it is new, or start anew with "
            "--force",
        )
    return UsageError(
        f"the checkpoint {shown} belongs to a run with other models, data or options",
        hint="give the options that it was started with, or start anew with --force",
    )


def _digest_of_names(names: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()


def _progress(text: str) -> Progress:
    """Return the progress that a text holds, its fields and their types checked."""
    entries: object = json.loads(text)
    if not isinstance(entries, dict) or entries.keys() != {entry.name for entry in fields(Progress)}:
        raise InputError("its progress has other fields")
    for name, entry in entries.items():
        if not _FITS[Progress.__annotations__[name]](entry):
            raise InputError(f"its progress says {name} = {quote(entry)}")
    progress = Progress(**entries)
    if not (0.0 <= progress.rate < float("inf") and progress.best_step <= progress.step):
        raise InputError("its progress contradicts itself")
    for rate in progress.searched:
        float(rate)
    return progress


def _is_number(entry: object) -> bool:
    return type(entry) is float or (type(entry) is int and abs(entry) <= _LARGEST_COUNT)


_FITS: dict[str, Callable[[object], bool]] = {
    "int": lambda entry: isinstance(entry, int) and _is_number(entry) and entry >= 0,
    "float": _is_number,
    "str": lambda entry: isinstance(entry, str),
    "dict[str, float]": lambda entry: isinstance(entry, dict) and all(map(_is_number, entry.values())),
}
"""Whether a value that was read is of the type that a field of `Progress` declares."""
