# SPDX-License-Identifier: Apache-2.0
"""Costs that are no sums of products of widths alone: the bytes of the written file, and the peak of memory."""
