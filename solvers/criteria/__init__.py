# SPDX-License-Identifier: Apache-2.0
"""Criteria: one module per way to score the channels of a coupled group."""
