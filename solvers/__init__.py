# SPDX-License-Identifier: Apache-2.0
"""Solvers: how important a channel is, and how wide every coupled group may be."""
