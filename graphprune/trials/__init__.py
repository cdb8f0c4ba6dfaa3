# SPDX-License-Identifier: Apache-2.0
"""Trials: solvers and criteria tried against each other, under one budget (`compare`) or over many (`sweep`)."""
