# SPDX-License-Identifier: Apache-2.0
"""Synthesis: samples that are made from what a model file alone says, where nobody has any."""
