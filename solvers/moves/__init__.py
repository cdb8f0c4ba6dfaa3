# SPDX-License-Identifier: Apache-2.0
"""Moves: steps by which solvers change widths, and the widths that there are."""
