# SPDX-License-Identifier: Apache-2.0
"""Emptying: what becomes of a graph when all channels of some groups go."""
