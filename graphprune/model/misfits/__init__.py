# SPDX-License-Identifier: Apache-2.0
"""Misfits: operands that no runtime would accept, found before anything else is looked for."""
