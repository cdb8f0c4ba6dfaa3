# SPDX-License-Identifier: Apache-2.0
"""Child processes of the library as forks: what runs a model still dies alone, but need not import anything first.

The library starts a new interpreter for every comparison, which is right for one model and slow for ten thousand small
ones. `use_forks` lets this process, in which everything is imported, fork them off instead.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphprune.model import constant_evaluation, observation, sandbox
from graphprune.model.sandbox import OUT_OF_TIME, RESULT, ChildError, shortened
from graphprune.verification import causes, check_runs, comparison, plain_run, same_outputs, verify

__all__ = ["MODULES", "use_forks"]

MODULES = (causes, check_runs, comparison, constant_evaluation, observation, plain_run, same_outputs, verify)
"""All modules that start children, or that children run."""

_MOST_SECONDS = 60.0
_FAILED = "failed.txt"


def use_forks() -> None:
    """Let the modules of the library that start child processes fork them off this one."""
    import onnxruntime  # noqa: F401 - once for all forks

    for module in MODULES:
        if hasattr(module, "run_child"):
            module.run_child = _run_forked


def _run_forked(
    module: str, folder: Path, timeout: float, prepare: Callable[[], object] | None = None
) -> dict[str, Any]:
    """Do what `sandbox.run_child` does, with a fork that gives up after a minute at most."""
    if prepare is not None:
        prepare()
    child = os.fork()
    if not child:
        _work(module, folder, min(timeout, _MOST_SECONDS))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        raise ChildError(f"onnxruntime {OUT_OF_TIME} {timeout:.0f} s")
    said = (folder / _FAILED).read_text("utf-8") if (folder / _FAILED).exists() else ""
    if status or not (folder / RESULT).exists():
        last = (said.strip().splitlines() or [f"the process ended with status {status}"])[-1]
        raise ChildError(f"onnxruntime failed: {shortened(last)}")
    result: dict[str, Any] = json.loads((folder / RESULT).read_text("utf-8"))
    return result


def _work(module: str, folder: Path, seconds: float) -> None:
    """Run the main function of a module, and end."""
    status = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        sys.stdin = io.StringIO(sandbox._GO)
        sys.stdout = sys.stderr = io.StringIO()
        status = importlib.import_module(module).main(str(folder)) or 0
    except BaseException:  # whatever it is, the parent is told
        (folder / _FAILED).write_text(traceback.format_exc(), "utf-8")
    finally:
        os._exit(status)
