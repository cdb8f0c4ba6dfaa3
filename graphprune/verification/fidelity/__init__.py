# SPDX-License-Identifier: Apache-2.0
"""Fidelity: a file differs from its original in what the plan explains, and in nothing else."""
