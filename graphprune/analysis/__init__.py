# SPDX-License-Identifier: Apache-2.0
"""Analysis: everything that is known of a model before any width is chosen, and why channels may go or stay."""
