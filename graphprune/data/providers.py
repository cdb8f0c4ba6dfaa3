# SPDX-License-Identifier: Apache-2.0
"""Where networks run on samples: the graphics processor if it is there and works, else the processor.

::

    with providers.on("cpu"):            # or the environment variable GRAPHPRUNE_DEVICE
        graphprune.recover(model, pruned, plan, data)

Whatever opens a session of onnxruntime for samples or for timing asks :func:`current`. Verification asks
:func:`verifying`: it stays on the processor, whose arithmetic its tolerances are about, unless somebody asks for
another one (GRAPHPRUNE_VERIFY_DEVICE, or :func:`verify_on`).

onnxruntime's GPU build is installed on many machines without such a processor, or without the libraries that it needs,
and then writes red lines at every session. So a tiny network is tried once, quietly, and what came of it decides.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from graphprune.choices import Device
from graphprune.errors import UsageError, did_you_mean, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "CPU",
    "CUDA",
    "VARIABLE",
    "VERIFY_VARIABLE",
    "ChosenDevice",
    "choose_device",
    "current",
    "on",
    "use",
    "use_for_verification",
    "verify_on",
    "verifying",
    "wanted",
]

VARIABLE = "GRAPHPRUNE_DEVICE"
"""The environment variable that says where networks run, where nothing else does."""
VERIFY_VARIABLE = "GRAPHPRUNE_VERIFY_DEVICE"
"""The same for verification, which is on the processor where nothing says otherwise."""
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
"""Products of full precision; and no search for the fastest kernel in every one of many short sessions."""
_DRIVERS = {"win32": "nvcuda.dll"}
_WANTED: ContextVar[Device | None] = ContextVar("device of graphprune", default=None)
"""What :func:`use` has said in this context; other threads and tasks do not see it."""
_VERIFYING: ContextVar[Device | None] = ContextVar("device of verification", default=None)


@dataclass(frozen=True)
class ChosenDevice:
    """Where networks run.

    Attributes
    ----------
    name : {"cpu", "cuda"}
    why : str
    """

    name: Literal["cpu", "cuda"]
    why: str

    @property
    def providers(self) -> list[Any]:
        """What onnxruntime takes as its list of providers; what CUDA has no kernel for runs on the processor."""
        return [CPU] if self.name == "cpu" else [(CUDA, _CUDA_OPTIONS), CPU]


def choose_device(wanted: Device, available: Sequence[str], fault: Callable[[], str]) -> ChosenDevice:
    """Choose where networks run.

    Parameters
    ----------
    wanted : {"auto", "cpu", "cuda"}
    available : sequence of str
        The providers that onnxruntime was built with.
    fault : callable
        Tries CUDA, and returns what is wrong with it; empty where it works. Called only where that matters.

    Raises
    ------
    UsageError
        If CUDA is asked for and does not work.
    """
    if wanted == "cpu":
        return ChosenDevice("cpu", "as was asked for")
    if CUDA not in available:
        problem = "this onnxruntime is built without CUDA"
        hint = "pip install onnxruntime-gpu, after pip uninstall -y onnxruntime"
    else:
        problem = fault()
        hint = "see https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html for what it needs"
    if not problem:
        return ChosenDevice("cuda", "it works" if wanted == "auto" else "as was asked for")
    if wanted == "cuda":
        raise UsageError(f"CUDA cannot be used: {problem}", hint=f"{hint}; or leave it to --device auto")
    return ChosenDevice("cpu", problem)


def wanted() -> Device:
    """Return what was said of the device: in this context, else by the environment, else "auto".

    Raises
    ------
    UsageError
        If the environment names none.
    """
    said = _WANTED.get()
    return _of_the_environment(VARIABLE, "auto") if said is None else said


def _of_the_environment(variable: str, default: Device) -> Device:
    text = os.environ.get(variable, "").strip().lower() or default
    for name in get_args(Device):
        if text == name:
            return name  # type: ignore[no-any-return]
    known = ", ".join(get_args(Device))
    raise UsageError(
        f"{variable} is {quote(text)}, but must be one of {known}", hint=did_you_mean(text, get_args(Device))
    )


def current() -> ChosenDevice:
    """Return where networks run now.

    Raises
    ------
    UsageError
        If CUDA is asked for and does not work.
    """
    return _chosen(wanted())


def verifying() -> ChosenDevice:
    """Return where verification runs now.

    Raises
    ------
    UsageError
        If CUDA is asked for and does not work.
    """
    said = _VERIFYING.get()
    return _chosen(_of_the_environment(VERIFY_VARIABLE, "cpu") if said is None else said)


def _chosen(asked: Device) -> ChosenDevice:
    import onnxruntime

    if asked == "cpu":  # nothing is looked for
        return choose_device(asked, (), str)
    return choose_device(asked, onnxruntime.get_available_providers(), _cuda_fault)


def use(device: Device) -> None:
    """Let networks run on a device from here on, in this context."""
    _WANTED.set(device)


def use_for_verification(device: Device) -> None:
    """Let verification run on a device from here on, in this context."""
    _VERIFYING.set(device)


@contextlib.contextmanager
def verify_on(device: Device) -> Iterator[None]:
    """Let verification run on a device within a ``with`` statement."""
    token = _VERIFYING.set(device)
    try:
        yield
    finally:
        _VERIFYING.reset(token)


@contextlib.contextmanager
def on(device: Device) -> Iterator[None]:
    """Let networks run on a device within a ``with`` statement."""
    token = _WANTED.set(device)
    try:
        yield
    finally:
        _WANTED.reset(token)


@functools.cache
def _cuda_fault() -> str:
    """Try CUDA once, quietly; return what is wrong with it."""
    driver = _driver_fault()
    if driver:
        return driver
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            getattr(onnxruntime, "preload_dlls", lambda: None)()  # libraries that came as Python packages
        return _trial()
    except Exception as error:  # onnxruntime has no common base for what it raises
        return f"a first network fails on it: {str(error).strip().splitlines()[0]}"
    finally:
        onnxruntime.set_default_logger_severity(2)


def _driver_fault() -> str:
    """Return why there is no processor to ask; onnxruntime itself would only say so in red."""
    try:
        driver = ctypes.CDLL(_DRIVERS.get(sys.platform, "libcuda.so.1"))
    except OSError:
        return "there is no driver of NVIDIA"
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the driver of NVIDIA finds no graphics processor"
    return ""


def _trial() -> str:
    """Run a network of one operator."""
    import numpy as np
    import onnxruntime
    from onnx import parser

    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x) => (float[2,2] y) {y = MatMul (x, x)}'
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=[(CUDA, _CUDA_OPTIONS), CPU])
    if CUDA not in session.get_providers():
        return "onnxruntime finds libraries that it needs nowhere (CUDA and cuDNN of its version)"
    session.run(None, {"x": np.ones((2, 2), np.float32)})
    return ""
