# SPDX-License-Identifier: Apache-2.0
"""How much main memory the machine has, or the container lets a process have; importing this loads nothing."""

from __future__ import annotations

import os

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

__all__ = ["main_memory"]


def main_memory() -> int:
    """Return the bytes of main memory, or of a container's; 16 GiB where the system does not tell."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = 1 << 34
    return min([machine, *_allowed()])


def _allowed() -> list[int]:
    """Return what control groups of Linux allow, where they limit anything."""
    allowed = []
    for path in _LIMITS:
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 - importing this loads nothing
                said = file.read().strip()
        except (OSError, ValueError):
            continue
        if said.isdigit() and int(said) > 0:
            allowed.append(int(said))
    return allowed
