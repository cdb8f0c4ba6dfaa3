# SPDX-License-Identifier: Apache-2.0
"""The installation: which packages are here and which are missing, where networks run, what the machine is.

::

    for finding in graphprune.examine_installation():
        print(finding.kind, finding.name, finding.found, finding.advice)
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graphprune import __version__, extras
from graphprune.errors import GraphPruneError
from graphprune.report import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.requirements import Requirement

__all__ = ["Finding", "examine_installation"]

_LITTLE_SPACE = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One fact of the installation.

    Attributes
    ----------
    part : str
        What it belongs to: "machine", "package", "extra", "runtime" or "device".
    name : str
    found : str
        What is here.
    state : {"ok", "missing", "wrong"}
        "missing" is what some commands need and nobody has to have, "wrong" what should be mended.
    advice : str
        The command or the sentence that mends it; empty where nothing has to be done.
    """

    part: Literal["machine", "package", "extra", "runtime", "device"]
    name: str
    found: str
    state: Literal["ok", "missing", "wrong"] = "ok"
    advice: str = ""


def examine_installation() -> list[Finding]:
    """Look at everything that decides what works here; no model is needed, and nothing is changed.

    Returns
    -------
    list of Finding
        The machine, the packages that every command needs, the extras, the runtimes of `deploy`, and the devices.
    """
    return [*_machine(), *_packages(), *_extras(), *_runtimes(), *_devices()]


def _machine() -> Iterator[Finding]:
    from graphprune.cost.latency.environment import processor_name
    from graphprune.model.files.main_memory import main_memory
    from graphprune.solvers.moves.levels import machine_rule

    yield Finding("machine", "system", f"{platform.system()} on {platform.machine()}")
    yield Finding("machine", "python", f"{platform.python_version()} in {sys.prefix}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = f"{processor_name()}, {text.plural(cores or 1, 'core')}"
    yield Finding("machine", "processor", f"{processor}; widths for {machine_rule()}")
    yield Finding("machine", "memory", text.file_size(main_memory()))
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    scarce = free < _LITTLE_SPACE
    advice = "verification puts both models there; point TMPDIR at a larger disk" if scarce else ""
    yield Finding("machine", "scratch", f"{text.file_size(free)} free in {folder}", "wrong" if scarce else "ok", advice)


def _packages() -> Iterator[Finding]:
    yield Finding("package", "graphprune", f"{__version__} in {Path(__file__).parent}")
    for requirement in _requirements():
        if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)
    conflict = extras.runtime_conflict()
    if conflict:
        sentence, _, mend = conflict.partition("; ")
        yield Finding("package", "onnxruntime twice", sentence, "wrong", mend)


def _package(requirement: Requirement) -> Finding:
    """Hold an installed package against what graphprune asks for."""
    install = f"pip install '{requirement.name}{requirement.specifier}'"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        other = next((name for name in extras.RUNTIMES if name != requirement.name), "")
        if requirement.name in extras.RUNTIMES and extras.installed(other):
            return Finding("package", other, f"{metadata.version(other)}, in place of {requirement.name}")
        return Finding("package", requirement.name, "not installed", "wrong", install)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding("package", requirement.name, f"{version}, needed {requirement.specifier}", "wrong", install)
    return Finding("package", requirement.name, version)


def _extras() -> Iterator[Finding]:
    """Look at the packages that only some commands need."""
    requirements = {_normal(each.name): each for each in _requirements()}
    for extra, modules in extras.EXTRAS.items():
        missing = extras.missing(extra)
        if missing:
            found = f"{', '.join(missing)} missing" if len(missing) < len(modules) else "not installed"
            advice = f"pip install 'graphprune[{extra}]'  # {extras.PURPOSES[extra]}"
            yield Finding("extra", extra, found, "missing", advice)
            continue
        stale = [
            finding
            for module in modules
            if (requirement := requirements.get(_normal(module))) is not None
            and (finding := _package(requirement)).state == "wrong"
        ]
        if stale:
            found = "; ".join(f"{finding.name} {finding.found}" for finding in stale)
            yield Finding("extra", extra, found, "wrong", f"pip install -U 'graphprune[{extra}]'")
        else:
            yield Finding("extra", extra, "installed")


def _runtimes() -> Iterator[Finding]:
    """Say in which runtimes `deploy` can try a network; what is missing comes with the extra, or not from PyPI."""
    from graphprune.export.runtime import RUNTIMES, make_runtime

    for name in RUNTIMES.names():
        try:
            with extras.importing():
                runtime = make_runtime(name)
                missing = runtime.missing()
                version = runtime.version()
        except GraphPruneError as error:
            yield Finding("runtime", name, error.message, "wrong", error.hint or "")
            continue
        found = f"not here: {missing}" if missing else f"{version or 'installed'}"
        yield Finding("runtime", name, found, "missing" if missing else "ok")


def _devices() -> Iterator[Finding]:
    """Say where networks run on samples."""
    from graphprune.data import providers

    try:
        with extras.importing():
            chosen = providers.current()
    except GraphPruneError as error:
        yield Finding("device", "in use", error.message, "wrong", error.hint or "")
        return
    yield Finding("device", "in use", f"{chosen.name} ({chosen.why})")


def _requirements() -> list[Requirement]:
    """Return what graphprune's own metadata asks for."""
    from packaging.requirements import Requirement

    try:
        return [Requirement(line) for line in metadata.requires("graphprune") or ()]
    except metadata.PackageNotFoundError:  # a checkout from which it is run without being installed
        return []


def _normal(name: str) -> str:
    """Return a package's name as the index compares them (PEP 503), modules with underscores included."""
    return re.sub(r"[-_.]+", "-", name).lower()
