# SPDX-License-Identifier: Apache-2.0
"""Every error a user of graphprune can meet, as one tree.

::

    GraphPruneError
    ├── RequestError               exit 1    the request cannot be met by this model
    │   ├── BudgetUnreachableError           the smallest reachable cost is above the budget
    │   ├── NothingToPruneError              no coupled channel group may lose a channel
    │   ├── NotImprovedError                 neither training nor recovery helped
    │   └── RuntimeMismatchError             a runtime takes the original and not the pruned network
    ├── InputError                 exit 2    what the user gave is not usable
    │   ├── ModelFileError                   missing, unreadable, truncated, not ONNX
    │   ├── UnsafeModelError                 reaches outside its folder, or exceeds a limit
    │   ├── UnsupportedModelError            valid, but beyond what graphprune reads
    │   ├── PlanError                        a plan file that is malformed or made for another model
    │   ├── PluginError                      a method of another installed package that cannot be used
    │   ├── DataError                        samples that are missing, unreadable or do not fit the model
    │   └── UsageError                       an option or argument with an unusable value
    ├── OutputError                exit 2    the result could not be written; nothing was changed
    ├── VerificationError          exit 101  the pruned model differs from the masked original
    └── InternalError              exit 101  a fault of graphprune itself

A message says what was found and where; ``hint`` says what to do next. Names that come from
a model are untrusted text: put them into messages with :func:`quote`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = [
    "BudgetUnreachableError",
    "DataError",
    "GraphPruneError",
    "InputError",
    "InternalError",
    "ModelFileError",
    "NotImprovedError",
    "NothingToPruneError",
    "OutputError",
    "PlanError",
    "PluginError",
    "RequestError",
    "RuntimeMismatchError",
    "UnsafeModelError",
    "UnsupportedModelError",
    "UsageError",
    "VerificationError",
    "clipped",
    "did_you_mean",
    "near_file",
    "quote",
]

_LONGEST_NAME = 80
_HEAD = 24
"""Letters of a long name that are shown in front; the others are its last ones: a path ends with the file's name."""


def quote(name: object) -> str:
    """Return ``repr(name)`` in at most 80 characters, without the middle of longer ones.

    Control characters stay harmless on a terminal. The end is kept because it is what tells paths, and names that
    an exporter numbered, apart.

    Examples
    --------
    >>> quote("conv1")
    "'conv1'"
    >>> quote("/home/somebody/experiments/with/a/deep/tree/of/folders/and/then/some/more/model.onnx")
    "'/home/somebody/experime...a/deep/tree/of/folders/and/then/some/more/model.onnx'"
    """
    text = repr(name)
    if len(text) <= _LONGEST_NAME:
        return text
    return f"{text[:_HEAD]}...{text[len(text) - (_LONGEST_NAME - _HEAD - 3) :]}"


def clipped(text: str, most: int = 300) -> str:
    r"""Return what another library says in one line of harmless characters, cut between words where it is too long.

    Examples
    --------
    >>> clipped("a long\nstory", 8)
    'a long ...'
    """
    line = ascii(" ".join(text[: 4 * most].split()))[1:-1]
    return line if len(line) <= most else (line[: most + 1].rpartition(" ")[0] or line[:most]) + " ..."


def did_you_mean(name: object, known: Iterable[str], *, shown: Callable[[str], str] = str) -> str | None:
    """Return the hint that names what is most like a name that is not known; None where nothing is like it.

    Parameters
    ----------
    name : object
        What was given.
    known : iterable of str
    shown : callable, optional
        How a name is written in the hint.

    Examples
    --------
    >>> did_you_mean("parms", ("flops", "params"))
    'did you mean params?'
    >>> did_you_mean("bn", ("l1", "bn-scale"))
    'did you mean bn-scale?'
    """
    by_key = {_key(each): each for each in known}
    given = _key(str(name))
    near = difflib.get_close_matches(given, by_key, n=1, cutoff=0.5)
    near = near or [key for key in by_key if len(given) > 1 and key.startswith(given)]
    return f"did you mean {shown(by_key[near[0]])}?" if near else None


def near_file(path: Path) -> str | None:
    """Return the hint that names what was meant, where a path leads nowhere; None where nothing there is like it."""
    try:
        near = (each for each in path.parent.iterdir() if each.suffix == path.suffix and each != path)
        stems = {each.stem: str(each) for each in near if each.is_file() or each.is_dir()}
    except OSError:
        return None
    return did_you_mean(path.stem, stems, shown=lambda stem: quote(stems[stem]))


def _key(name: str) -> str:
    return name.lower().replace("_", "-")


class GraphPruneError(Exception):
    """Base of all errors raised by graphprune.

    Parameters
    ----------
    message : str
        What was found, and where (file, node, tensor).
    hint : str, optional
        What to do next.
    """

    exit_code = 101

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class RequestError(GraphPruneError):
    """The request is well formed, but this model cannot meet it."""

    exit_code = 1


class BudgetUnreachableError(RequestError):
    """Even the narrowest allowed widths cost more than the budget."""


class NothingToPruneError(RequestError):
    """The model has no coupled channel group that may lose a channel."""


class NotImprovedError(RequestError):
    """Training or recovery did not lower the held-out loss or error, so its result was thrown away."""


class RuntimeMismatchError(RequestError):
    """The original works in a runtime, and the pruned network does not, or gives something else there."""


class InputError(GraphPruneError):
    """What the user gave (a file, a plan, an option) is not usable."""

    exit_code = 2


class ModelFileError(InputError):
    """The model file is missing, unreadable, truncated or not ONNX."""


class UnsafeModelError(InputError):
    """The model reaches outside its own folder or exceeds a safety limit."""


class UnsupportedModelError(InputError):
    """The model is valid ONNX, but uses something graphprune does not read."""


class PlanError(InputError):
    """The plan file is malformed, inconsistent, or was made for another model."""


class PluginError(InputError):
    """A criterion or solver of another installed package cannot be loaded, or failed."""


class DataError(InputError):
    """Samples are missing or unreadable, or do not fit the model."""


class UsageError(InputError):
    """An option or argument has an unusable value."""


class OutputError(GraphPruneError):
    """The result could not be written; what was there before is unchanged."""

    exit_code = 2


class VerificationError(GraphPruneError):
    """The pruned model does not equal the masked original; nothing was written."""


class InternalError(GraphPruneError):
    """An invariant of graphprune itself was violated."""
