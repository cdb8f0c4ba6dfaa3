# SPDX-License-Identifier: Apache-2.0
"""Ranges: between which values each channel of each activation lies, from weights and operators alone."""

from graphprune.inheritance.ranges import elementwise, moving, weighted  # noqa: F401 - they register their rules
from graphprune.inheritance.ranges.walk import Ranges, find_ranges

__all__ = ["Ranges", "find_ranges"]
