# SPDX-License-Identifier: Apache-2.0
"""Packages that only some commands need: what to say where they are not installed.

Pruning and recovery work without torch, which is most of an installation that has it. What needs it stands in
``graphprune.training`` and ``graphprune.export``; both ask here first, so that whoever gets there without it is told
what to install, however they came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from traceback import walk_tb
from types import FrameType
from typing import Literal

from graphprune.errors import UsageError, quote

__all__ = [
    "EXTRAS",
    "PURPOSES",
    "RUNTIMES",
    "import_failure",
    "importing",
    "installed",
    "missing",
    "require",
    "require_some",
    "runtime_conflict",
]

Extra = Literal["train", "report", "runtimes", "dask", "ray"]

EXTRAS: dict[Extra, tuple[str, ...]] = {
    "train": ("torch", "torchvision", "accelerate", "onnx2fx", "onnxscript", "safetensors"),
    "report": ("altair", "jinja2", "vl_convert"),
    "runtimes": ("openvino", "MNN", "ncnn", "pnnx", "cv2"),
    "dask": ("distributed",),
    "ray": ("ray",),
}
"""The packages of each extra, as they are imported."""

PURPOSES: dict[Extra, str] = {
    "train": "train, finetune, export, refined samples, criteria that read gradients",
    "report": "report",
    "runtimes": "deploy in OpenVINO, MNN, ncnn and OpenCV",
    "dask": "compare and sweep on a Dask cluster",
    "ray": "compare and sweep on a Ray cluster",
}
"""What needs each extra."""

_OWN = ("graphprune", "__main__", "")

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""Packages that bring the module ``onnxruntime``; one of them is enough."""


def missing(extra: Extra) -> list[str]:
    """Return the packages of an extra that are not installed; none of them is imported."""
    return [name for name in EXTRAS[extra] if find_spec(name) is None]


def require(extra: Extra, what: str) -> None:
    """Refuse what cannot work without the packages of an extra; none of them is imported.

    Parameters
    ----------
    extra : str
    what : str
        What needs them, for the message: "`graphprune train`".

    Raises
    ------
    UsageError
        If one is missing, naming it and the command that installs it.
    """
    _refuse(extra, missing(extra), what)


def require_some(extra: Extra, names: Sequence[str], what: str) -> None:
    """Refuse what cannot work without some of the packages of an extra; otherwise as :func:`require`."""
    _refuse(extra, [name for name in names if find_spec(name) is None], what)


def _refuse(extra: Extra, absent: Sequence[str], what: str) -> None:
    if absent:
        are = "is" if len(absent) == 1 else "are"
        raise UsageError(
            f"{', '.join(absent)} {are} not installed, but needed for {what}",
            hint=f"pip install 'graphprune[{extra}]'",
        )


def import_failure(error: BaseException) -> UsageError | None:
    """Return what to say of an error that arose while another package was imported; None for others.

    What is installed may be broken all the same: a library of the system is missing, or of another version.
    """
    if not isinstance(error, ImportError | OSError):
        return None
    names = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__) if _imports(frame)]
    package = next((top for name in names if (top := name.partition(".")[0]) not in _OWN), "")
    if not package:
        return None
    brought_by = sorted({*metadata.packages_distributions().get(package, [package])})
    return UsageError(
        f"{package} is installed, but cannot be imported: {quote(str(error))[1:-1]}",
        hint=f"pip install --force-reinstall {' '.join(brought_by)}",
    )


@contextmanager
def importing() -> Iterator[None]:
    """Raise what :func:`import_failure` says, where something that is done imports what is broken."""
    try:
        yield
    except (ImportError, OSError) as error:
        failure = import_failure(error)
        if failure is None:
            raise
        raise failure from error


def _imports(frame: FrameType) -> bool:
    """Whether a frame runs a module, and no function of one."""
    return frame.f_code.co_name == "<module>"


def runtime_conflict() -> str:
    """Return what to say where two packages of onnxruntime are installed over one another; nothing elsewhere.

    Both own the folder ``onnxruntime``: whichever came last replaced a part of the other's files.
    """
    if not all(installed(name) for name in RUNTIMES):
        return ""
    both = " and ".join(RUNTIMES)
    return (
        f"{both} are both installed and overwrite each other's files, so the GPU may not be found or nothing may run; "
        f"keep one: pip uninstall -y {' '.join(RUNTIMES)} && pip install {RUNTIMES[1]}"
    )


def installed(name: str) -> bool:
    """Whether a package of this name is installed; it is not imported."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
