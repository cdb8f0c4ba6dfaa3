# SPDX-License-Identifier: Apache-2.0
"""The plan: its data, its file, and whether it fits a model."""
