# SPDX-License-Identifier: Apache-2.0
"""Sizes of inputs: those for which everything is analysed, and whether the graph agrees with them."""
