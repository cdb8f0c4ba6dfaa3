# SPDX-License-Identifier: Apache-2.0
"""Explanations: why channels go together, and why they stay."""
