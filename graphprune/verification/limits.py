# SPDX-License-Identifier: Apache-2.0
"""Limits of the comparison that both processes know; importing them loads nothing."""

from __future__ import annotations

__all__ = ["RELATIVE"]

RELATIVE = 1e-4
"""Deviations up to here are rounding, whatever the noise floor."""
