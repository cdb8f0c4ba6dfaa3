# SPDX-License-Identifier: Apache-2.0
"""Inheritance: what becomes of the weights that read a removed channel, before anything is removed."""
