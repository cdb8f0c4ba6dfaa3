# SPDX-License-Identifier: Apache-2.0
"""Ranges: between which values each channel of each activation lies, from weights and operators alone."""

# They register their rules.
from graphprune.rewrites.ranges import elementwise as elementwise
from graphprune.rewrites.ranges import moving as moving
from graphprune.rewrites.ranges import weighted as weighted
from graphprune.rewrites.ranges.propagate_ranges import Ranges, find_ranges

__all__ = ["Ranges", "find_ranges"]
