# SPDX-License-Identifier: Apache-2.0
"""Runtimes, one a file: how each converts a network, loads it and runs it."""
