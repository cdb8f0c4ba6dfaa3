# SPDX-License-Identifier: Apache-2.0
"""Pruning while training: the pieces that methods are made of, and the run around a method.

Each piece can be used in a loop of one's own: a schedule of costs, regularisers, the slices of a group's weights, a
network that shrinks. The methods themselves are in :mod:`graphprune.solvers.training`, one file each.
"""
