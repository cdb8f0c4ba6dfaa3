# SPDX-License-Identifier: Apache-2.0
"""Rewrites: edits of the original before the cut, and the reference that they give."""
