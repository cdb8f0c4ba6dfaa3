# SPDX-License-Identifier: Apache-2.0
"""Protocols: what solvers and criteria may ask about samples, as arrays per group."""
