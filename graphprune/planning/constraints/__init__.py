# SPDX-License-Identifier: Apache-2.0
"""Constraints: what may become of single groups, besides the budget of the whole network."""
