# SPDX-License-Identifier: Apache-2.0
"""How much main memory the machine has; importing this loads nothing."""

from __future__ import annotations

import os

__all__ = ["main_memory"]


def main_memory() -> int:
    """Return the bytes of main memory, or 16 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 34
