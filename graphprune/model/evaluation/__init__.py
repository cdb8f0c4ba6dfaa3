# SPDX-License-Identifier: Apache-2.0
"""Evaluation of constant expressions, and the bounds on the work that a file may ask for."""
