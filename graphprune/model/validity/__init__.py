# SPDX-License-Identifier: Apache-2.0
"""Validity: what must hold of a model before anything is read out of it."""
