# SPDX-License-Identifier: Apache-2.0
"""Widening: the inverse of pruning, which has channels several times and changes nothing."""
