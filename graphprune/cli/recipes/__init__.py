# SPDX-License-Identifier: Apache-2.0
"""Recipes: a chain of commands written down in a file, carried out step by step, recorded, and gone on with."""
